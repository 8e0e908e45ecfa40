// Products of a tall matrix, (rows, inputs), with a small one, as convolutions with a 1×1 kernel are. Included by
// kernels.cpp.
//
// oneDNN blocks for hundreds of channels; these networks have tens. A few rows times a few vectors of outputs stay in
// registers while all inputs pass by. Processors that multiply bf16 fast take it in pairs, both products at once, and weights
// rounded to it, as in autocast; elsewhere it is widened on the way in, and weights are as they are. Sums are single
// precision in any case. (Those that compute in fp16, Intel's, multiply pairs of bf16 at half the speed of fp32.)

#pragma once

#if defined(__AVX512BF16__) && !defined(__AVX512FP16__)
#define TRISCALE_BF16_PAIRS
#endif

namespace triscale {
namespace TRISCALE_ISA {
namespace {

constexpr int kWide = kRegisters == 32 ? 3 : 2;  // vectors of outputs at once
constexpr int kTall = kRegisters == 32 ? 8 : 4;  // rows at once beside as many

// Rows at once beside fewer vectors: where there are registers, enough sums that none waits for the one before.
constexpr int rows_beside(int vectors) { return kRegisters != 32 || vectors == kWide ? kTall : vectors == 2 ? 12 : 16; }

// What products of T multiply, and how many of them in a step along what is summed over.
template <class T>
struct Step {
  using Value = float;
  static constexpr long kDepth = 1;
};

TRISCALE_INLINE Vec add_products(Vec sum, Vec a, Vec b) { return sum + a * b; }

// A step's values of one row for every lane, and those of as many columns as there are lanes.
TRISCALE_INLINE Vec each(const float* p) { return all(*p); }
TRISCALE_INLINE Vec whole(const float* p) { return load(p, Full{}); }

// What a step takes of a vector of columns: of one row, or of two, where the second may be missing.
template <class T, class L>
TRISCALE_INLINE void join(const T* first, const T*, float* out, L lanes) {
  store(out, load(first, lanes), Full{});
}

#if defined(TRISCALE_BF16_PAIRS)
template <>
struct Step<Bf16> {
  using Value = Bf16;
  static constexpr long kDepth = 2;
};

TRISCALE_INLINE Vec add_products(Vec sum, Words a, Words b) {
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

TRISCALE_INLINE Words each(const Bf16* p) {
  uint32_t pair;
  memcpy(&pair, p, sizeof pair);
  return pair - Words{};
}

TRISCALE_INLINE Words whole(const Bf16* p) {
  Words pairs;
  memcpy(&pairs, p, sizeof pairs);
  return pairs;
}

TRISCALE_INLINE Words bits(Halves v) { return (Words)_mm512_cvtepu16_epi32((__m256i)v); }

TRISCALE_INLINE Words bits(const Bf16* p, Full) {
  Halves v;
  memcpy(&v, p, sizeof v);
  return bits(v);
}

TRISCALE_INLINE Words bits(const Bf16* p, First lanes) { return bits((Halves)_mm256_maskz_loadu_epi16(lanes.mask, p)); }

template <class L>
TRISCALE_INLINE void join(const Bf16* first, const Bf16* second, Bf16* out, L lanes) {
  Words pairs = bits(first, lanes);
  if (second != nullptr) pairs |= bits(second, lanes) << 16;
  memcpy(out, &pairs, sizeof pairs);
}
#endif

// Columns as panels of one to kWide vectors, as even as they come.
struct ColumnPanels {
  long columns, vectors, count;

  explicit ColumnPanels(long columns_)
      : columns(columns_), vectors((columns_ + kLanes - 1) / kLanes), count((vectors + kWide - 1) / kWide) {}
  long first(long panel) const { return vectors * panel / count * kLanes; }
  long width(long panel) const { return first(panel + 1) - first(panel); }
  long there(long panel) const { return min_of(width(panel), columns - first(panel)); }
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

// A panel of weight, (inputs, outputs) or its transpose → (steps, width, values of a step); what is missing is 0.
inline void pack_panel(const float* weight, long inputs, const ColumnPanels& panels, long panel, bool transposed, float* to) {
  const long first = panels.first(panel), width = panels.width(panel), there = panels.there(panel);
  if (there < width) memset(to, 0, inputs * width * sizeof(float));
  if (!transposed) {
    for (long i = 0; i < inputs; i++) memcpy(to + i * width, weight + i * panels.columns + first, there * sizeof(float));
    return;
  }
  // A few inputs at a time: what is read is read in order, and what is written stays in the cache meanwhile.
  for (long from = 0; from < inputs; from += kLanes) {
    const long end = min_of(inputs, from + kLanes);
    for (long j = 0; j < there; j++) {
      for (long i = from; i < end; i++) to[i * width + j] = weight[(first + j) * inputs + i];
    }
  }
}

#if defined(TRISCALE_BF16_PAIRS)
inline void pack_panel(const float* weight, long inputs, const ColumnPanels& panels, long panel, bool transposed, Bf16* to) {
  const long first = panels.first(panel), width = panels.width(panel), there = panels.there(panel);
  if (there < width) memset(to, 0, round_up(inputs, 2) * width * sizeof(Bf16));
  if (!transposed) {
    for (long i = 0; i < inputs; i += 2) {
      const float* row = weight + i * panels.columns + first;
      each_vector(there, [&](long at, auto lanes) {
        const Vec second = i + 1 < inputs ? load(row + panels.columns + at, lanes) : all(0);
        const Words pairs = bits(narrow(load(row + at, lanes))) | bits(narrow(second)) << 16;
        memcpy(to + (i * width + at * 2), &pairs, sizeof pairs);
      });
    }
    return;
  }
  for (long from = 0; from < inputs; from += kLanes) {
    for (long j = 0; j < there; j++) {
      Bf16 row[kLanes];
      store(row, load(weight + (first + j) * inputs + from, First(min_of(kLanes, inputs - from))), Full{});
      for (long i = 0; i < kLanes && from + i < inputs; i += 2) memcpy(to + ((from + i) * width + j * 2), row + i, 4);
    }
  }
}
#endif

// ROWS rows of x, `apart` values from one to the next, times a panel of weight: so many columns of y, (rows, outputs).
template <int ROWS, int VECTORS, class V, class T>
inline void tile(const V* x, long apart, long steps, const V* weight, T* y, long outputs, long columns) {
  constexpr long kDepth = Step<V>::kDepth;
  constexpr int kBases = (ROWS + 4) / 5;
  Vec sums[ROWS][VECTORS];
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = all(0);
  }
  // Rows are addressed from every fifth one: more pointers would not stay in registers.
  const V* at[kBases];
  TRISCALE_UNROLL for (int b = 0; b < kBases; b++) at[b] = x + b * 5 * apart;
  for (const V* end = weight + steps * VECTORS * kLanes * kDepth; weight < end; weight += VECTORS * kLanes * kDepth) {
    decltype(whole(weight)) taps[VECTORS];
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) taps[v] = whole(weight + v * kLanes * kDepth);
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
      const auto value = each(at[r / 5] + r % 5 * apart);
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = add_products(sums[r][v], value, taps[v]);
    }
    TRISCALE_UNROLL for (int b = 0; b < kBases; b++) {
      at[b] += kDepth;
      asm volatile("" : "+r"(at[b]));
    }
  }
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
      T* to = y + r * outputs + v * kLanes;
      if ((v + 1) * kLanes <= columns) {
        store(to, sums[r][v], Full{});
      } else {
        store(to, sums[r][v], First(columns - v * kLanes));
      }
    }
  }
}

// Rows as products take them: where they lie, or, widened or with their last step filled up, in a buffer.
template <class T>
struct Steps {
  using Value = typename Step<T>::Value;
  static constexpr long kDepth = Step<T>::kDepth;
  long inputs, count, apart;
  bool direct;

  explicit Steps(long inputs_)
      : inputs(inputs_), count((inputs_ + kDepth - 1) / kDepth), apart(count * kDepth),
        direct(sizeof(T) == sizeof(Value) && apart == inputs_) {}
  long buffer(long rows) const { return direct ? 0 : round_up(rows * apart * sizeof(Value), 64); }

  const float* of(const float* x, long, float*) const { return x; }
  const float* of(const Bf16* x, long rows, float* room) const {
    each_vector(rows * inputs, [&](long at, auto lanes) { store(room + at, load(x + at, lanes), lanes); });
    return room;
  }
  const Bf16* of(const Bf16* x, long rows, Bf16* room) const {
    if (direct) return x;
    for (long r = 0; r < rows; r++) {
      memcpy(room + r * apart, x + r * inputs, inputs * sizeof(Bf16));
      room[(r + 1) * apart - 1].bits = 0;
    }
    return room;
  }
};

// y = x·weight, for weight (inputs, outputs) in the order that `transposed` says.
template <class T>
int product(long rows, long inputs, long outputs, int threads, const T* x, const float* weight, bool transposed, T* y) {
  using Value = typename Step<T>::Value;
  constexpr long kRowsAtOnce = 48;  // a whole number of tiles of any width
  const ColumnPanels panels(outputs);
  const Steps<T> steps(inputs);
  const long chunks = (rows + kRowsAtOnce - 1) / kRowsAtOnce, tasks = min_of(chunks, 64);
  Scratch scratch(steps.apart * panels.padded() * sizeof(Value));
  if (!scratch.ok()) return kNoMemory;
  Value* taps = scratch.at<Value>(0);
  for_each(panels.count, threads, [&](long p) {
    pack_panel(weight, inputs, panels, p, transposed, taps + steps.apart * panels.first(p));
  });
  Failure failure;
  for_each(tasks, threads, [&](long task) {
    Scratch own(steps.buffer(kRowsAtOnce));
    if (!own.ok()) return failure.set();
    for (long chunk = chunks * task / tasks; chunk < chunks * (task + 1) / tasks; chunk++) {
      const long start = chunk * kRowsAtOnce, count = min_of(kRowsAtOnce, rows - start);
      const Value* from = steps.of(x + start * inputs, count, own.at<Value>(0));
      for (long p = 0; p < panels.count; p++) {
        const long first = panels.first(p), there = panels.there(p);
        with_vectors(panels.width(p), [&](auto vectors) {
          constexpr int kVectors = decltype(vectors)::value, kBeside = rows_beside(kVectors);
          const Value* panel = taps + steps.apart * first;
          T* to = y + start * outputs + first;
          long r = 0;
          for (; r + kBeside <= count; r += kBeside) {
            tile<kBeside, kVectors>(from + r * steps.apart, steps.apart, steps.count, panel, to + r * outputs, outputs, there);
          }
          for (; r < count; r++) {
            tile<1, kVectors>(from + r * steps.apart, steps.apart, steps.count, panel, to + r * outputs, outputs, there);
          }
        });
      }
    }
  });
  return failure.code();
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
