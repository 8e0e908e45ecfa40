// The product under every dense convolution: a few pixels times two vectors of outputs stay in registers while all
// inputs pass by. Included by layers.cpp.
//
// Weights lie as pack.h has them. bf16 is multiplied in pairs of inputs, by VDPBF16PS, and summed in single precision; fp16
// too, and is summed as fp16. Where there are matrix tiles, bf16 is multiplied by those: see tiles.h.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

constexpr int kPixelsAtOnce = kRegisters == 32 ? 14 : 6;
// Where the inputs of a pixel lie: `taps` runs of `inputs` values each, the first at 0, the others at `offsets`.
struct Window {
  long taps, inputs;
  const long* offsets;
};

// The activations that only cut off: between what.
struct Limits {
  float low, high;
};

// Null for those that do more than that; those of none at all do not cut.
inline const Limits* limits_of(long activation) {
  static const Limits none{-__builtin_inff(), __builtin_inff()}, relu{0, __builtin_inff()}, relu6{0, 6};
  return activation == kNone ? &none : activation == kRelu ? &relu : activation == kRelu6 ? &relu6 : nullptr;
}

// What is no number stays none.
TRISCALE_INLINE Vec cut(Vec v, Vec low, Vec high) {
#if defined(__AVX512F__)
  return (Vec)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)v));
#else
  v = v < low ? low : v;
  return v > high ? high : v;
#endif
}

// Weights are asked for long before they are needed, in bytes: they come from beyond the second cache. A few rows are
// soon done with them.
constexpr long ahead(int rows) { return rows > 4 ? 4096 : 16384; }
TRISCALE_INLINE void fetch(const void* p, int lines) {
  for (int i = 0; i < lines; i++) __builtin_prefetch(static_cast<const char*>(p) + 64 * i);
}
constexpr int lines_of(int vectors) { return (vectors * kLanes * 4 + 63) / 64; }

// What a product asks for beside its own weights: an address, and how many bytes further the next step's is. (A number, for
// nothing is read there, and behind the last weights it is no place of ours.)
struct Stream {
  uintptr_t at;
  long step;

  Stream after(long steps) const { return {at + steps * step, step}; }
  TRISCALE_INLINE void ask() {
    fetch(reinterpret_cast<const void*>(at), 1);
    at += step;
  }
};

// The next panel of so many bytes, whose steps are `step` bytes: all tiles that are multiplied with the panel before ask for
// a part each. Memory is slower than the products of one tile are, but has the time of all of them.
inline Stream stream(const void* next, long bytes, long step, long tile, long tiles) {
  return {reinterpret_cast<uintptr_t>(next) + bytes * tile / tiles, (step + tiles - 1) / tiles};
}

#if defined(__AVX512BF16__)
TRISCALE_INLINE __m512bh pair_at(const Bf16* x) {
  int32_t pair;
  memcpy(&pair, x, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}
#endif

// y (ROWS, VECTORS vectors) = bias + the window of ROWS pixels, `apart` values from one to the next, times a panel, cut off
// at the limits, where there are any. Rows of y are `y_apart` values from one to the next.
template <int ROWS, int VECTORS>
__attribute__((noinline)) void product(const float* x, long apart, const Window& window, const float* weight,
                                       const float* bias, const Limits* limits, float* y, long y_apart, Stream next) {
  Vec sum[ROWS][VECTORS];
  TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
    const Vec first = load(bias + v * kLanes, Full{});
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) sum[r][v] = first;
  }
  for (long tap = 0; tap < window.taps; tap++) {
    // Rows are addressed from every fifth one: more pointers would not stay in registers.
    const float* at[3] = {x + window.offsets[tap], x + window.offsets[tap] + 5 * apart, x + window.offsets[tap] + 10 * apart};
    for (long i = 0; i < window.inputs; i++) {
      Vec taps[VECTORS];
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) taps[v] = load(weight + v * kLanes, Full{});
      TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
        const Vec value = all(at[r / 5][r % 5 * apart]);
        TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] += value * taps[v];
      }
      fetch(weight + ahead(ROWS) / sizeof(float), lines_of(VECTORS));
      next.ask();
      weight += VECTORS * kLanes;
      at[0]++, at[1]++, at[2]++;
      asm volatile("" : "+r"(at[0]), "+r"(at[1]), "+r"(at[2]));
    }
  }
  if (limits != nullptr) {
    const Vec low = all(limits->low), high = all(limits->high);
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = cut(sum[r][v], low, high);
    }
  }
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) store(y + r * y_apart + v * kLanes, sum[r][v], Full{});
  }
}

#if !defined(TRISCALE_TILES)
template <int ROWS, int VECTORS>
__attribute__((noinline)) void product(const Bf16* x, long apart, const Window& window, const Bf16* weight,
                                       const float* bias, const Limits* limits, float* y, long y_apart, Stream next) {
#if defined(__AVX512BF16__)
  __m512 sum[ROWS][VECTORS];
  TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
    const __m512 first = _mm512_loadu_ps(bias + v * kLanes);
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) sum[r][v] = first;
  }
  for (long tap = 0; tap < window.taps; tap++) {
    const Bf16* at[3] = {x + window.offsets[tap], x + window.offsets[tap] + 5 * apart, x + window.offsets[tap] + 10 * apart};
    for (long i = 0; i < window.inputs; i += 2) {
      __m512bh taps[VECTORS];
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) taps[v] = (__m512bh)_mm512_loadu_si512(weight + v * kPair);
      TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
        const __m512bh value = pair_at(at[r / 5] + r % 5 * apart);
        TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], value, taps[v]);
      }
      fetch(weight + ahead(ROWS) / sizeof(Bf16), lines_of(VECTORS));
      next.ask();
      weight += VECTORS * kPair;
      at[0] += 2, at[1] += 2, at[2] += 2;
      asm volatile("" : "+r"(at[0]), "+r"(at[1]), "+r"(at[2]));
    }
  }
  if (limits != nullptr) {
    const Vec low = all(limits->low), high = all(limits->high);
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = (__m512)cut((Vec)sum[r][v], low, high);
    }
  }
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(y + r * y_apart + v * kLanes, sum[r][v]);
  }
#else
  (void)x, (void)apart, (void)window, (void)weight, (void)bias, (void)limits, (void)y, (void)y_apart, (void)next;  // never asked for: see kMultiplies
#endif
}
#endif

#if defined(__AVX512FP16__)
// Inputs that are summed one after another in fp16. Their sums are kept apart and added up in the end: the fewer one after
// another, the smaller the error.
constexpr long kChain = 128;

// Two inputs of a pixel stand side by side in each half of a float's lane, and so do their sums; those are added last.
template <int ROWS, int VECTORS>
struct PairSums {
  Half32 sum[ROWS][VECTORS];

  TRISCALE_INLINE explicit PairSums(const float* bias) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
      const Half32 first = (Half32)_mm512_cvtepu16_epi32((__m256i)halved(load(bias + v * kLanes, Full{})));
      TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) sum[r][v] = first;
    }
  }

  // Puts a row's sums of a whole panel into the order of its outputs, each vector having every other one.
  TRISCALE_INLINE Half32 row(int r, Number<2>) const {
    constexpr __mmask32 kOdd = 0xaaaaaaaa;
    const __m512i even = (__m512i)sum[r][0], odd = (__m512i)sum[r][VECTORS - 1];
    const __m512i own = _mm512_mask_blend_epi16(kOdd, even, odd), other = _mm512_mask_blend_epi16(kOdd, odd, even);
    return (Half32)own + (Half32)_mm512_rol_epi32(other, 16);
  }
  TRISCALE_INLINE Half16 row(int r, Number<1>) const {
    const Half32 both = sum[r][0] + (Half32)_mm512_rol_epi32((__m512i)sum[r][0], 16);
    return (Half16)_mm512_cvtepi32_epi16((__m512i)both);
  }
};

template <int ROWS, int VECTORS>
__attribute__((noinline)) void product(const Fp16* x, long apart, const Window& window, const Fp16* weight,
                                       const float* bias, const Limits* limits, Fp16* y, long y_apart, Stream next) {
  PairSums<ROWS, VECTORS> of(bias);
  Half32 before[ROWS][VECTORS];
  long chain = 0;
  bool split = false;
  for (long tap = 0; tap < window.taps; tap++) {
    const Fp16* at[3] = {x + window.offsets[tap], x + window.offsets[tap] + 5 * apart, x + window.offsets[tap] + 10 * apart};
    for (long i = 0; i < window.inputs;) {
      if (chain >= kChain) {
        TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
          TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
            before[r][v] = split ? before[r][v] + of.sum[r][v] : of.sum[r][v];
            of.sum[r][v] = Half32{};
          }
        }
        split = true, chain = 0;
      }
      const long until = min_of(window.inputs, i + kChain);
      chain += until - i;
      for (; i < until; i += 2) {
        Half32 taps[VECTORS];
        TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) taps[v] = Get<Half32>::from(weight + v * kPair);
        TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
          int32_t pair;
          memcpy(&pair, at[r / 5] + r % 5 * apart, sizeof pair);
          const Half32 value = (Half32)_mm512_set1_epi32(pair);
          TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) of.sum[r][v] += value * taps[v];
        }
        fetch(weight + ahead(ROWS) / sizeof(Fp16), lines_of(VECTORS));
        next.ask();
        weight += VECTORS * kPair;
        at[0] += 2, at[1] += 2, at[2] += 2;
        asm volatile("" : "+r"(at[0]), "+r"(at[1]), "+r"(at[2]));
      }
    }
  }
  if (split) {
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) of.sum[r][v] += before[r][v];
    }
  }
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    auto row = of.row(r, Number<VECTORS>{});
    using V = decltype(row);
    if (limits != nullptr) row = cut(row, Get<V>::all_of(limits->low), Get<V>::all_of(limits->high));
    store(y + r * y_apart, row, Full{});
  }
}
#endif

template <class T>
using Product = void (*)(const T*, long, const Window&, const T*, const float*, const Limits*, Sum<T>*, long, Stream);

template <class T, int ROWS>
Product<T> find_product(long rows, long vectors) {
  if (rows == ROWS) return vectors == 2 ? Product<T>(product<ROWS, 2>) : Product<T>(product<ROWS, 1>);
  if constexpr (ROWS > 1) return find_product<T, ROWS - 1>(rows, vectors);
  return nullptr;
}

// How a run of pixels is covered: by as few tiles as can be, which are as even as they come. Matrix tiles are all of one
// height, for it is set up once, and some pixels are computed twice.
struct Tiles {
  long pixels, count;

  explicit Tiles(long pixels_) : pixels(pixels_), count((pixels_ + kPixelsAtOnce - 1) / kPixelsAtOnce) {}
  long first(long tile) const { return kTiles ? min_of(tile * most(), pixels - most()) : pixels * tile / count; }
  long rows(long tile) const { return kTiles ? most() : first(tile + 1) - first(tile); }
  long fewest() const { return kTiles ? most() : pixels / count; }
  long most() const { return (pixels + count - 1) / count; }
};

// Products that are added one after another in fp32: equal ones are all rounded to the same side, by an error that grows with
// how many there are.
constexpr long kInRow = 512;

// The product for every tile of pixels, which differ by one row at most, and for either width of a panel.
template <class T>
class TileProduct {
 public:
  TileProduct(const Tiles& tiles, const Window& window) : fewest_(tiles.fewest()), window_(window) {
    for (long vectors = 1; vectors <= 2; vectors++) {
      short_[vectors - 1] = find_product<T, kPixelsAtOnce>(fewest_, vectors);
      tall_[vectors - 1] = find_product<T, kPixelsAtOnce>(tiles.most(), vectors);
    }
  }

  // As `product`, of so many rows and vectors of outputs.
  TRISCALE_INLINE void operator()(long rows, long vectors, const T* x, long apart, const T* weight, const float* bias,
                                  const Limits* limits, Sum<T>* y, long y_apart, Stream next) const {
    const Product<T> multiply = (rows == fewest_ ? short_ : tall_)[vectors - 1];
    if constexpr (Same<T, float>::value) {
      if (window_.taps * window_.inputs > kInRow) {
        return in_parts(multiply, rows, vectors * kLanes, x, apart, weight, bias, limits, y, y_apart, next);
      }
    }
    multiply(x, apart, window_, weight, bias, limits, y, y_apart, next);
  }

 private:
  // Some taps, or some inputs of one, at a time: their sums are added up by themselves.
  __attribute__((noinline)) void in_parts(Product<float> multiply, long rows, long width, const float* x, long apart,
                                          const float* weight, const float* bias, const Limits* limits, float* y,
                                          long y_apart, Stream next) const {
    alignas(64) static const float kNothing[kPair] = {};
    alignas(64) float sums[kPixelsAtOnce * kPair], more[kPixelsAtOnce * kPair];
    const long taps = max_of(1, kInRow / window_.inputs), parts = (window_.inputs + kInRow - 1) / kInRow;
    for (long tap = 0; tap < window_.taps; tap += taps) {
      for (long part = 0; part < parts; part++) {
        const long begin = window_.inputs * part / parts, end = window_.inputs * (part + 1) / parts;
        const Window some{min_of(taps, window_.taps - tap), end - begin, window_.offsets + tap};
        const bool first = tap + part == 0;
        multiply(x + begin, apart, some, weight, first ? bias : kNothing, nullptr, first ? sums : more, width, next);
        weight += some.taps * some.inputs * width;
        next = next.after(some.taps * some.inputs);
        if (first) continue;
        for (long i = 0; i < rows * width; i += kLanes) store(sums + i, load(sums + i, Full{}) + load(more + i, Full{}), Full{});
      }
    }
    const Limits& within = *(limits != nullptr ? limits : limits_of(kNone));
    const Vec low = all(within.low), high = all(within.high);
    for (long r = 0; r < rows; r++) {
      for (long i = 0; i < width; i += kLanes) store(y + r * y_apart + i, cut(load(sums + r * width + i, Full{}), low, high), Full{});
    }
  }

  const long fewest_;
  const Window& window_;
  Product<T> short_[2], tall_[2];
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
