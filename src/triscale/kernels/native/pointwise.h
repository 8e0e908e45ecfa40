// Convolution with a 1×1 kernel and its gradients: products of a tall matrix, (rows, inputs), with a small one. Included by
// kernels.cpp.
//
// oneDNN blocks for hundreds of channels; these networks have tens. A few rows times a few vectors of outputs stay in
// registers while all inputs pass by. bf16 is widened on the way in and multiplied in single precision, which on
// processors without matrix units is twice as fast as their bf16 products, and exact.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

constexpr int kWide = kRegisters == 32 ? 3 : 2;  // vectors of outputs at once
constexpr int kTall = kRegisters == 32 ? 8 : 4;  // rows at once beside as many

// Columns as panels of one to kWide vectors, as even as they come.
struct Panels {
  long columns, vectors, count;

  explicit Panels(long columns_)
      : columns(columns_), vectors((columns_ + kLanes - 1) / kLanes), count((vectors + kWide - 1) / kWide) {}
  long first(long panel) const { return vectors * panel / count * kLanes; }
  long width(long panel) const { return first(panel + 1) - first(panel); }
  long padded() const { return vectors * kLanes; }
};

// Calls call(number of vectors as a type) for a panel of that width.
template <class Call>
TRISCALE_INLINE void with_vectors(long width, Call call) {
  switch (width / kLanes) {
    case 1: return call(Number<1>{});
    case 2: return call(Number<2>{});
    default: return call(Number<kWide>{});
  }
}

// (rows, columns) or its transpose → (rows, columns filled up with zeros to whole vectors).
inline void pack(const float* from, long rows, long columns, bool transposed, float* to) {
  const long step = round_up(columns, kLanes);
  memset(to, 0, rows * step * sizeof(float));
  // A few rows at a time: what is read is read in order, and what is written stays in the cache meanwhile.
  for (long from_row = 0; from_row < rows; from_row += 16) {
    const long to_row = least(rows, from_row + 16);
    if (!transposed) {
      for (long i = from_row; i < to_row; i++) memcpy(to + i * step, from + i * columns, columns * sizeof(float));
      continue;
    }
    for (long j = 0; j < columns; j++) {
      for (long i = from_row; i < to_row; i++) to[i * step + j] = from[j * rows + i];
    }
  }
}

// VECTORS vectors of ROWS rows of x·weight. x: (rows, inputs) in single precision; weight: (inputs, step).
template <int ROWS, int VECTORS, class T>
inline void tile(const float* x, long inputs, const float* weight, long step, T* y, long outputs, long left) {
  Vec sums[ROWS][VECTORS];
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = all(0);
  }
  for (long i = 0; i < inputs; i++) {
    Vec taps[VECTORS];
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) taps[v] = load(weight + i * step + v * kLanes, Full{});
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
      const Vec value = all(x[r * inputs + i]);
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] += value * taps[v];
    }
  }
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
      T* at = y + r * outputs + v * kLanes;
      if ((v + 1) * kLanes <= left) {
        store(at, sums[r][v], Full{});
      } else {
        store(at, sums[r][v], First(left - v * kLanes));
      }
    }
  }
}

template <int ROWS, class T>
inline void tiles(const float* x, long inputs, const float* weight, long step, T* y, long outputs) {
  for (long j = 0; j < outputs;) {
    const long left = outputs - j, vectors = (left + kLanes - 1) / kLanes;
    // Two and two are faster than three and one.
    switch (kWide == 3 && vectors == 4 ? 2 : least(kWide, vectors)) {
      case 1: tile<ROWS, 1>(x, inputs, weight + j, step, y + j, outputs, left); break;
      case 2: tile<ROWS, 2>(x, inputs, weight + j, step, y + j, outputs, left); break;
      default: tile<ROWS, kWide>(x, inputs, weight + j, step, y + j, outputs, left); break;
    }
    j += (kWide == 3 && vectors == 4 ? 2 : kWide) * kLanes;
  }
}

// Rows in single precision: where they lie, or widened into a buffer.
inline const float* single(const float* x, long, float*) { return x; }
inline const float* single(const Bf16* x, long n, float* buffer) {
  each_vector(n, [&](long at, auto lanes) { store(buffer + at, load(x + at, lanes), lanes); });
  return buffer;
}

// y = x·weight, for weight (inputs, outputs) in the order that `transposed` says.
template <class T>
int product(long rows, long inputs, long outputs, int threads, const T* x, const float* weight, bool transposed, T* y) {
  constexpr long kAtOnce = 64;
  const long step = round_up(outputs, kLanes), chunks = (rows + kAtOnce - 1) / kAtOnce;
  const long buffer = round_up(kTall * inputs, 16) * sizeof(float), packed = inputs * step * sizeof(float);
  const long tasks = least(chunks, 64);
  Scratch scratch(packed + tasks * buffer);
  if (!scratch.ok()) return -1;
  float* taps = scratch.at<float>(0);
  pack(weight, inputs, outputs, transposed, taps);
  for_each(tasks, threads, [&](long task) {
    float* own = scratch.at<float>(packed + task * buffer);
    const long end = least(rows, chunks * (task + 1) / tasks * kAtOnce);
    long row = chunks * task / tasks * kAtOnce;
    for (; row + kTall <= end; row += kTall) {
      tiles<kTall>(single(x + row * inputs, kTall * inputs, own), inputs, taps, step, y + row * outputs, outputs);
    }
    for (; row < end; row++) {
      tiles<1>(single(x + row * inputs, inputs, own), inputs, taps, step, y + row * outputs, outputs);
    }
  });
  return 0;
}

// Columns of the tall tensor lie together by so many: whole vectors, whole groups of kTall.
constexpr int kTogether = kTall > kLanes ? kTall : kLanes;

// Adds to `sums`, (kTall, the panel's width), the products over `rows` rows of kTall columns of tall, (rows, kTogether), and
// of wide, (rows, the width).
template <int VECTORS>
inline void outer(const float* tall, const float* wide, long rows, float* sums) {
  Vec found[kTall][VECTORS];
  TRISCALE_UNROLL for (int t = 0; t < kTall; t++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) found[t][v] = all(0);
  }
  for (const float* end = wide + rows * VECTORS * kLanes; wide < end; tall += kTogether, wide += VECTORS * kLanes) {
    Vec values[VECTORS];
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) values[v] = load(wide + v * kLanes, Full{});
    TRISCALE_UNROLL for (int t = 0; t < kTall; t++) {
      const Vec one = all(tall[t]);
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) found[t][v] += one * values[v];
    }
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
  static constexpr long kAtOnce = 128;  // rows that are summed in registers
  long groups, chunks, size, runs, parts;

  OuterCut(long rows, long tall, const Panels& panels) {
    groups = (tall + kTall - 1) / kTall, chunks = (rows + kAtOnce - 1) / kAtOnce;
    size = groups * kTall * panels.padded();
    // Sums should be little beside the rows that they are made of; where that leaves few runs, parts are work for threads.
    runs = most(1, least(least(chunks, 64), rows * (tall + panels.columns) / (8 * size)));
    parts = least(panels.count, (16 + runs - 1) / runs);
  }
};

// Rows of `tall` → kTogether columns of all rows before the next.
template <class T>
inline void pack_tall(const T* tall, long rows, long size, float* to) {
  for (long r = 0; r < rows; r++) {
    each_vector(size, [&](long at, auto lanes) {
      float* place = to + (at / kTogether * OuterCut::kAtOnce + r) * kTogether + at % kTogether;
      store(place, load(tall + r * size + at, lanes), Full{});
    });
  }
}

// Sums over all rows of every value of `tall` times every value of `wide`, (tall, wide) or, where asked, transposed.
template <class T>
int outer_products(long rows, long tall_size, long wide_size, int threads, const T* tall, const T* wide, bool transposed,
                   float* out) {
  constexpr long kAtOnce = OuterCut::kAtOnce;
  const Panels panels(wide_size);
  const OuterCut cut(rows, tall_size, panels);
  const long tall_part = kAtOnce * round_up(tall_size, kTogether);
  const long part_size = kAtOnce * ((panels.count + cut.parts - 1) / cut.parts * kWide * kLanes);
  const long buffers = tall_part + part_size;
  const long tasks = cut.runs * cut.parts;
  Scratch scratch((cut.runs * cut.size + tasks * buffers) * sizeof(float));
  if (!scratch.ok()) return -1;
  float* sums = scratch.at<float>(0);
  for_each(tasks, threads, [&](long task) {
    const long run = task / cut.parts, part = task % cut.parts;
    const long from = panels.count * part / cut.parts, to = panels.count * (part + 1) / cut.parts;
    float* packed = sums + cut.runs * cut.size + task * buffers;
    float *values = packed + tall_part, *own = sums + run * cut.size;
    memset(packed, 0, tall_part * sizeof(float));
    memset(own + panels.first(from) * cut.groups * kTall, 0,
           (panels.first(to) - panels.first(from)) * cut.groups * kTall * sizeof(float));
    for (long chunk = cut.chunks * run / cut.runs; chunk < cut.chunks * (run + 1) / cut.runs; chunk++) {
      const long start = chunk * kAtOnce, count = least(kAtOnce, rows - start);
      pack_tall(tall + start * tall_size, count, tall_size, packed);
      for (long p = from; p < to; p++) {
        const long first = panels.first(p), width = panels.width(p), there = least(width, wide_size - first);
        for (long r = 0; r < count; r++) {
          const T* line = wide + (start + r) * wide_size + first;
          each_vector(there, [&](long c, auto lanes) { store(values + r * width + c, load(line + c, lanes), Full{}); });
        }
        with_vectors(width, [&](auto vectors) {
          for (long g = 0; g < cut.groups; g++) {
            const float* group = packed + g * kTall / kTogether * kAtOnce * kTogether + g * kTall % kTogether;
            outer<decltype(vectors)::value>(group, values, count, own + (first * cut.groups + g * width) * kTall);
          }
        });
      }
    }
  });
  for_each(panels.count, threads, [&](long p) {
    const long first = panels.first(p), width = panels.width(p), there = least(width, wide_size - first);
    for (long t = 0; t < tall_size; t++) {
      const float* at = sums + (first * cut.groups + t / kTall * width) * kTall + t % kTall * width;
      each_vector(there, [&](long c, auto) {
        Vec sum = all(0);
        for (long run = 0; run < cut.runs; run++) sum += load(at + run * cut.size + c, Full{});
        float found[kLanes];
        store(found, sum, Full{});
        for (long i = 0; i < least(kLanes, there - c); i++) {
          const long w = first + c + i;
          out[transposed ? w * tall_size + t : t * wide_size + w] = found[i];
        }
      });
    }
  });
  return 0;
}

// grad_weight, (outputs, inputs). More vectors at once are fewer loads for each product, so the wider tensor is `wide`.
template <class T>
int weight_gradient(long rows, long inputs, long outputs, int threads, const T* grad, const T* x, float* grad_weight) {
  return outputs > inputs ? outer_products(rows, inputs, outputs, threads, x, grad, true, grad_weight)
                          : outer_products(rows, outputs, inputs, threads, grad, x, false, grad_weight);
}

int pointwise(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* x, const float* weight,
              void* y) {
  return bf16 ? product(rows, inputs, outputs, threads, static_cast<const Bf16*>(x), weight, true,
                        static_cast<Bf16*>(y))
              : product(rows, inputs, outputs, threads, static_cast<const float*>(x), weight, true,
                        static_cast<float*>(y));
}

template <class T>
int pointwise_backward_of(long rows, long inputs, long outputs, int threads, const T* grad, const T* x,
                          const float* weight, T* grad_x, float* grad_weight) {
  if (grad_x != nullptr) {
    if (int failed = product(rows, outputs, inputs, threads, grad, weight, false, grad_x)) return failed;
  }
  return grad_weight == nullptr ? 0 : weight_gradient(rows, inputs, outputs, threads, grad, x, grad_weight);
}

int pointwise_backward(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* grad,
                       const void* x, const float* weight, void* grad_x, float* grad_weight) {
  return bf16 ? pointwise_backward_of(rows, inputs, outputs, threads, static_cast<const Bf16*>(grad),
                                      static_cast<const Bf16*>(x), weight, static_cast<Bf16*>(grad_x), grad_weight)
              : pointwise_backward_of(rows, inputs, outputs, threads, static_cast<const float*>(grad),
                                      static_cast<const float*>(x), weight, static_cast<float*>(grad_x), grad_weight);
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
