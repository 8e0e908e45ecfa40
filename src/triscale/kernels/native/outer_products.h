// Products of the transpose of a tall matrix with another tall one, which is how a weight's gradient is summed over rows.
// Included by kernels.cpp.
//
// A few columns of one times a few vectors of columns of the other stay in registers while some rows pass by. The steps
// along what is summed are those of products.h.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// Columns of the tall tensor lie together by so many: whole vectors, whole groups of kTall.
constexpr int kColumnsTogether = kTall > kLanes ? kTall : kLanes;

// Adds to `sums`, (kTall, the panel's width), the products over so many steps of rows of kTall columns of tall, (steps,
// kColumnsTogether), and of wide, (steps, the width).
template <int VECTORS, class V>
inline void outer(const V* tall, const V* wide, long steps, float* sums) {
  constexpr long kDepth = Step<V>::kDepth;
  Vec found[kTall][VECTORS];
  TRISCALE_UNROLL for (int t = 0; t < kTall; t++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) found[t][v] = all(0);
  }
  for (const V* end = wide + steps * VECTORS * kLanes * kDepth; wide < end; wide += VECTORS * kLanes * kDepth) {
    decltype(whole(wide)) values[VECTORS];
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) values[v] = whole(wide + v * kLanes * kDepth);
    TRISCALE_UNROLL for (int t = 0; t < kTall; t++) {
      const auto one = each(tall + t * kDepth);
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) found[t][v] = add_products(found[t][v], one, values[v]);
    }
    tall += kColumnsTogether * kDepth;
  }
  TRISCALE_UNROLL for (int t = 0; t < kTall; t++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
      float* at = sums + (t * VECTORS + v) * kLanes;
      store(at, load(at, Full{}) + found[t][v], Full{});
    }
  }
}

// How sums over rows of every value of a tall tensor times every value of a wide one are cut: rows into runs, each with
// sums of its own, and the wide one's panels into parts. Depends on shapes alone: so do the bits of the result.
struct OuterCut {
  static constexpr long kRowsSummed = 128;  // rows that are summed in registers
  long groups, chunks, size, runs, parts;

  OuterCut(long rows, long tall, const ColumnPanels& panels) {
    groups = (tall + kTall - 1) / kTall, chunks = (rows + kRowsSummed - 1) / kRowsSummed;
    size = groups * kTall * panels.padded();
    // Sums should be little beside the rows that they are made of; where that leaves few runs, parts are work for threads.
    runs = max_of(1, min_of(min_of(chunks, 64), rows * (tall + panels.columns) / (8 * size)));
    parts = min_of(panels.count, (16 + runs - 1) / runs);
  }
};

// Packs `columns` columns of rows that are `apart` values apart: steps of rows, `width` columns of one step together.
// to(column) says where the first step of a vector of columns goes.
template <class T, class To>
inline void pack_rows(const T* from, long rows, long apart, long columns, long width, To to) {
  constexpr long kDepth = Step<T>::kDepth;
  for (long r = 0; r < rows; r += kDepth) {
    const T* row = from + r * apart;
    each_vector(columns, [&](long at, auto lanes) {
      join(row + at, r + 1 < rows ? row + apart + at : nullptr, to(at) + r * width, lanes);
    });
  }
}

// Sums over all rows of every value of `tall` times every value of `wide`, (tall, wide) or, where asked, transposed.
template <class T>
int outer_products(long rows, long tall_size, long wide_size, int threads, const T* tall, const T* wide, bool transposed,
                   float* out) {
  using Value = typename Step<T>::Value;
  constexpr long kRowsSummed = OuterCut::kRowsSummed, kDepth = Step<T>::kDepth;
  const ColumnPanels panels(wide_size);
  const OuterCut cut(rows, tall_size, panels);
  const long tall_part = kRowsSummed * round_up(tall_size, kColumnsTogether);
  const long tasks = cut.runs * cut.parts, all_sums = cut.runs * cut.size * sizeof(float);
  const long buffers = round_up((tall_part + kRowsSummed * kWide * kLanes) * sizeof(Value), 64);
  Scratch scratch(all_sums + tasks * buffers);
  if (!scratch.ok()) return kNoMemory;
  float* sums = scratch.at<float>(0);
  // Where a column of the tall tensor begins among those that are packed.
  auto place = [](long column) {
    return column / kColumnsTogether * kRowsSummed * kColumnsTogether + column % kColumnsTogether * kDepth;
  };
  for_each(tasks, threads, [&](long task) {
    const long run = task / cut.parts, part = task % cut.parts;
    const long from = panels.count * part / cut.parts, to = panels.count * (part + 1) / cut.parts;
    Value* packed = scratch.at<Value>(all_sums + task * buffers);
    Value* values = packed + tall_part;
    float* own = sums + run * cut.size;
    memset(packed, 0, tall_part * sizeof(Value));
    memset(own + panels.first(from) * cut.groups * kTall, 0,
           (panels.first(to) - panels.first(from)) * cut.groups * kTall * sizeof(float));
    for (long chunk = cut.chunks * run / cut.runs; chunk < cut.chunks * (run + 1) / cut.runs; chunk++) {
      const long start = chunk * kRowsSummed, count = min_of(kRowsSummed, rows - start), steps = (count + kDepth - 1) / kDepth;
      pack_rows(tall + start * tall_size, count, tall_size, tall_size, kColumnsTogether,
                [&](long column) { return packed + place(column); });
      for (long p = from; p < to; p++) {
        const long first = panels.first(p), width = panels.width(p);
        pack_rows(wide + start * wide_size + first, count, wide_size, panels.there(p), width,
                  [&](long at) { return values + at * kDepth; });
        with_vectors(width, [&](auto vectors) {
          for (long g = 0; g < cut.groups; g++) {
            float* found = own + (first * cut.groups + g * width) * kTall;
            outer<decltype(vectors)::value>(packed + place(g * kTall), values, steps, found);
          }
        });
      }
    }
  });
  for_each(panels.count, threads, [&](long p) {
    const long first = panels.first(p), width = panels.width(p);
    for (long t = 0; t < tall_size; t++) {
      const float* at = sums + (first * cut.groups + t / kTall * width) * kTall + t % kTall * width;
      each_vector(panels.there(p), [&](long c, auto) {
        Vec sum = all(0);
        for (long run = 0; run < cut.runs; run++) sum += load(at + run * cut.size + c, Full{});
        float found[kLanes];
        store(found, sum, Full{});
        for (long i = 0; i < min_of(kLanes, panels.there(p) - c); i++) {
          const long w = first + c + i;
          out[transposed ? w * tall_size + t : t * wide_size + w] = found[i];
        }
      });
    }
  });
  return kDone;
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
