// Vectors of floats as wide as the instruction set that this file is compiled for, and how bf16 comes and goes.
//
// Everything here and in the kernels lies in a namespace of its own for each instruction set, and no function of the
// C++ library is used: a template of the library, compiled for AVX-512 in one file and for SSE2 in another, has one
// name, and the linker keeps either. A machine without AVX-512 would then die in what looks like its own code.

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define TRISCALE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TRISCALE_UNROLL _Pragma("GCC unroll 64")
#endif
#define TRISCALE_INLINE inline __attribute__((always_inline))

namespace triscale {
namespace TRISCALE_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kRegisters = 32;
#else
constexpr int kLanes = 4;
constexpr int kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

// A number as a type.
template <int N>
struct Number {
  static constexpr int value = N;
};

struct Bf16 {
  uint16_t bits;
};

// Calls call(T{}) for the type T of a tensor's values.
template <class Call>
TRISCALE_INLINE int with_values(int bf16, Call call) {
  return bf16 ? call(Bf16{}) : call(float{});
}

TRISCALE_INLINE constexpr long min_of(long a, long b) { return a < b ? a : b; }
TRISCALE_INLINE long max_of(long a, long b) { return a > b ? a : b; }
TRISCALE_INLINE long round_up(long n, long to) { return (n + to - 1) / to * to; }

// Not 0 + value, which compilers must compute: it is not −0 where the value is.
TRISCALE_INLINE Vec all(float value) { return value - Vec{}; }

// Which lanes of a vector are there: all of them, or the first few, where the channels end. The rest is never read
// from memory (it counts as 0) and never written.
struct Full {};

struct First {
#if defined(__AVX512F__)
  __mmask16 mask;
  explicit First(long count) : mask(static_cast<__mmask16>((1u << count) - 1u)) {}
#else
  int count;
  explicit First(long n) : count(static_cast<int>(n)) {}
#endif
};

TRISCALE_INLINE Vec widen(Halves bits) {
#if defined(__AVX512F__)
  // One instruction, where GCC makes four of the conversion below.
  return (Vec)((Words)_mm512_cvtepu16_epi32((__m256i)bits) << 16);
#elif defined(__AVX2__)
  return (Vec)((Words)_mm256_cvtepu16_epi32((__m128i)bits) << 16);
#else
  return (Vec)(__builtin_convertvector(bits, Words) << 16);
#endif
}

// The bits of a float, or of a vector of them, as bf16: to nearest, ties to even, as PyTorch rounds; what is no number stays
// none.
template <class V, class Bits>
TRISCALE_INLINE Bits narrow_bits(V v, Bits bits) {
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return v == v ? rounded : (bits >> 16) | 0x40;
}

// A single value; it stays what it is where it is denormal, which the processor's own instruction takes for 0.
inline Bf16 narrow(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return {static_cast<uint16_t>(narrow_bits(value, bits))};
}

TRISCALE_INLINE Halves narrow(Vec v) {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh((__m512)v);
#else
  return __builtin_convertvector(narrow_bits(v, (Words)v), Halves);
#endif
}

TRISCALE_INLINE Vec load(const float* p, Full) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

TRISCALE_INLINE Vec load(const Bf16* p, Full) {
  Halves v;
  memcpy(&v, p, sizeof v);
  return widen(v);
}

// The same, from now on in a register: compilers would load it again for every product that takes it.
TRISCALE_INLINE Vec kept(Vec v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

TRISCALE_INLINE void store(float* p, Vec v, Full) { memcpy(p, &v, sizeof v); }

TRISCALE_INLINE void store(Bf16* p, Vec v, Full) {
  Halves bits = narrow(v);
  memcpy(p, &bits, sizeof bits);
}

#if defined(__AVX512F__)
TRISCALE_INLINE Vec load(const float* p, First lanes) { return (Vec)_mm512_maskz_loadu_ps(lanes.mask, p); }

TRISCALE_INLINE Vec load(const Bf16* p, First lanes) {
  return widen((Halves)_mm256_maskz_loadu_epi16(lanes.mask, p));
}

TRISCALE_INLINE void store(float* p, Vec v, First lanes) { _mm512_mask_storeu_ps(p, lanes.mask, (__m512)v); }

TRISCALE_INLINE void store(Bf16* p, Vec v, First lanes) {
  _mm256_mask_storeu_epi16(p, lanes.mask, (__m256i)narrow(v));
}
#else
TRISCALE_INLINE Vec load(const float* p, First lanes) {
  Vec v{};
  for (int i = 0; i < lanes.count; i++) v[i] = p[i];
  return v;
}

TRISCALE_INLINE Vec load(const Bf16* p, First lanes) {
  Halves v{};
  for (int i = 0; i < lanes.count; i++) v[i] = p[i].bits;
  return widen(v);
}

TRISCALE_INLINE void store(float* p, Vec v, First lanes) {
  for (int i = 0; i < lanes.count; i++) p[i] = v[i];
}

TRISCALE_INLINE void store(Bf16* p, Vec v, First lanes) {
  Halves bits = narrow(v);
  for (int i = 0; i < lanes.count; i++) p[i].bits = bits[i];
}
#endif

// A vector from values in memory, computed with as V.
template <class V>
struct Get {
  template <class X>
  static TRISCALE_INLINE V from(const X* p) {
    return load(p, Full{});
  }
  static TRISCALE_INLINE V all_of(float value) { return all(value); }
};

// As T keeps it.
template <class T>
TRISCALE_INLINE Vec rounded(Vec v) {
  return sizeof(T) == sizeof(float) ? v : widen(narrow(v));
}

// Calls block(offset, lanes) for every vector of n values: all of them full but perhaps the last.
template <class Block>
TRISCALE_INLINE void each_vector(long n, Block block) {
  long at = 0;
  for (; at + kLanes <= n; at += kLanes) block(at, Full{});
  if (at < n) block(at, First(n - at));
}

// Calls block(offset, lanes, repeated) for vectors that cover n values, with one type of lanes, so that long kernels are
// compiled once. Without masks the last vector reaches back over values that came before: `repeated` of its first lanes.
// `enough` tells whether there are values for that.
#if defined(__AVX512F__)
constexpr bool enough(long) { return true; }

template <class Block>
TRISCALE_INLINE void cover(long n, Block block) {
  for (long at = 0; at < n; at += kLanes) block(at, First(min_of(n - at, kLanes)), 0);
}
#else
constexpr bool enough(long n) { return n >= kLanes; }

template <class Block>
TRISCALE_INLINE void cover(long n, Block block) {
  for (long at = 0; at < n; at += kLanes) {
    const long start = min_of(at, n - kLanes);
    block(start, Full{}, at - start);
  }
}
#endif

// Adds what was summed in single precision to sums in double.
TRISCALE_INLINE void add_to(double* sums, const float* values, long n) {
  constexpr long kDoubles = kLanes / 2;
  typedef float Some __attribute__((vector_size(kDoubles * 4)));
  typedef double Wide __attribute__((vector_size(kDoubles * 8)));
  long i = 0;
  for (; i + kDoubles <= n; i += kDoubles) {
    Some more;
    Wide sum;
    memcpy(&more, values + i, sizeof more);
    memcpy(&sum, sums + i, sizeof sum);
    sum += __builtin_convertvector(more, Wide);
    memcpy(sums + i, &sum, sizeof sum);
  }
  for (; i < n; i++) sums[i] += values[i];
}

constexpr int kVectorsAtOnce = 8;    // vectors that are added to each other before a sum takes them
constexpr long kSingle = 32;  // rows that are summed in single precision before a sum in double takes them

// Adds N vectors to a sum, 1 or kVectorsAtOnce: several in pairs first. One after another, equal values (zeros after an
// activation, a background) would all be rounded to the same side, by an error that grows with their number.
template <int N>
class Pairs {
  static_assert(N == 1 || N == kVectorsAtOnce, "");

 public:
  // v: number i of the N.
  TRISCALE_INLINE void add(int i, Vec v, Vec& sum) {
    if (N == 1) {
      sum += v;
    } else if ((i & 1) == 0) {
      one_ = v;
    } else if ((i & 2) == 0) {
      two_ = one_ + v;
    } else if ((i & 4) == 0) {
      four_ = two_ + (one_ + v);
    } else {
      sum += four_ + (two_ + (one_ + v));
    }
  }

 private:
  Vec one_, two_, four_;  // what 1, 2 and 4 of them amount to, and wait for as many more
};

// 2^f for |f| ≤ 1/2, by minimax polynomials of the relative error.
template <class T>
TRISCALE_INLINE Vec exp2_near_0(Vec f) {
  Vec q;
  if (sizeof(T) == 4) {
    q = f * 1.327647198e-3f + 9.675541334e-3f;
    q = q * f + 5.550713274e-2f;
    q = q * f + 2.402211972e-1f;
    q = q * f + 6.931469671e-1f;
    q = q * f + 1.0f;
  } else {
    q = f * 5.517166907e-2f + 2.426111222e-1f;
    q = q * f + 6.932609855e-1f;
    q = q * f + 9.999280735e-1f;
  }
  return q;
}

// 2^t, to 2e-7 of itself; for bf16, whose own step is 4e-3, to 8e-5.
template <class T>
TRISCALE_INLINE Vec exp2(Vec t) {
  // Beyond that the logistic function is 0 in single precision, and the reciprocal's Newton step would make it no number.
  t = t > 126.0f ? all(126.0f) : t;
#if defined(__AVX512F__)
  Vec n = (Vec)_mm512_roundscale_ps((__m512)t, 0x08);
  Vec f = t - n;
#else
  t = t < -126.0f ? all(-126.0f) : t;
  const float magic = 12582912.0f;  // 1.5·2^23: adding it rounds to a whole number, which stands in the low bits
  Vec shifted = t + magic;
  Ints n = (Ints)shifted - 0x4b400000;
  Vec f = t - (shifted - magic);
#endif
  const Vec q = exp2_near_0<T>(f);
#if defined(__AVX512F__)
  return (Vec)_mm512_scalef_ps((__m512)q, (__m512)n);
#else
  return (Vec)((Ints)q + (n << 23));
#endif
}

// 1/v. The processor's estimate with a Newton step, several times faster than a division; for bf16 the estimate alone.
template <class T>
TRISCALE_INLINE Vec reciprocal(Vec v) {
#if defined(__AVX512F__)
  Vec r = (Vec)_mm512_rcp14_ps((__m512)v);
  return sizeof(T) == 4 ? r * (2.0f - r * v) : r;
#elif defined(__AVX2__)
  Vec r = (Vec)_mm256_rcp_ps((__m256)v);
  return sizeof(T) == 4 ? r * (2.0f - r * v) : r;
#else
  return 1.0f / v;
#endif
}

// 1/(1 + e^-z).
template <class T>
TRISCALE_INLINE Vec logistic(Vec z) {
  return reciprocal<T>(1.0f + exp2<T>(z * -1.442695041f));
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
