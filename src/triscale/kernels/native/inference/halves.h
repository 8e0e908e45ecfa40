// What differs between precisions: in what is summed, how many values a vector has, in which order outputs are packed. And
// fp16 by AVX512-FP16: maps, weights, sums and activations are fp16, and computed with as such, 32 at a time. Where matrix
// tiles multiply bf16 (see tiles.h), what follows a product up to the next map is computed with as fp16 as well, which has
// three bits more: activations, depthwise convolutions. Included by layers.cpp.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// What products and depthwise convolutions of T sum up in, and leave their sums as.
template <class T>
struct Summed {
  typedef float type;
};

// Adds a vector to sums in single precision, which are as many vectors of floats as it takes.
TRISCALE_INLINE void add_to_sums(Vec* sums, Vec v) { sums[0] += v; }

// Calls block(V, count): a panel of so many vectors of floats, computed with as `count` vectors V.
template <class T>
struct InVectors {
  template <class Block>
  static TRISCALE_INLINE void call(long vectors, Block block) {
    return vectors == 2 ? block(Vec{}, Number<2>{}) : block(Vec{}, Number<1>{});
  }
};

// Which output of a panel of so many stands at a place of its weights.
template <class T>
struct Order {
  static constexpr long output(long place, long) { return place; }
};

#if defined(__AVX512FP16__)
struct Fp16 {
  _Float16 value;
};

typedef _Float16 Half32 __attribute__((vector_size(64)));
typedef _Float16 Half16 __attribute__((vector_size(32)));

template <>
struct Summed<Fp16> {
  typedef Fp16 type;
};

struct InHalves {
  template <class Block>
  static TRISCALE_INLINE void call(long vectors, Block block) {
    return vectors == 2 ? block(Half32{}, Number<1>{}) : block(Half16{}, Number<1>{});
  }
};
template <>
struct InVectors<Fp16> : InHalves {};

#if defined(TRISCALE_TILES)
template <>
struct Summed<Bf16> {
  typedef Fp16 type;
};
template <>
struct InVectors<Bf16> : InHalves {};
#endif

// A whole panel's two vectors take every other output each: their sums fit together with one shuffle.
template <>
struct Order<Fp16> {
  static constexpr long output(long place, long width) {
    return width == 2 * kLanes ? 2 * (place % kLanes) + place / kLanes : place;
  }
};

template <class V>
struct GetHalves {
  static TRISCALE_INLINE V from(const Fp16* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static TRISCALE_INLINE V all_of(float value) { return static_cast<_Float16>(value) - V{}; }
};

TRISCALE_INLINE Vec widen(Half16 v) { return (Vec)_mm512_cvtph_ps((__m256i)v); }
TRISCALE_INLINE Half16 halved(Vec v) { return (Half16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
TRISCALE_INLINE Half32 halved(Vec first, Vec second) {
  return (Half32)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)halved(first)), (__m256i)halved(second), 1);
}
TRISCALE_INLINE Vec first_half(Half32 v) { return (Vec)_mm512_cvtph_ps(_mm512_castsi512_si256((__m512i)v)); }
TRISCALE_INLINE Vec second_half(Half32 v) { return (Vec)_mm512_cvtph_ps(_mm512_extracti64x4_epi64((__m512i)v, 1)); }

template <>
struct Get<Half32> : GetHalves<Half32> {
  using GetHalves<Half32>::from;
  static TRISCALE_INLINE Half32 from(const Bf16* p) { return halved(load(p, Full{}), load(p + kLanes, Full{})); }
};
template <>
struct Get<Half16> : GetHalves<Half16> {
  using GetHalves<Half16>::from;
  static TRISCALE_INLINE Half16 from(const Bf16* p) { return halved(load(p, Full{})); }
};

TRISCALE_INLINE Vec load(const Fp16* p, Full) { return widen(Get<Half16>::from(p)); }
TRISCALE_INLINE Vec load(const Fp16* p, First lanes) { return widen((Half16)_mm256_maskz_loadu_epi16(lanes.mask, p)); }
TRISCALE_INLINE void store(Fp16* p, Half32 v, Full) { memcpy(p, &v, sizeof v); }
TRISCALE_INLINE void store(Fp16* p, Half16 v, Full) { memcpy(p, &v, sizeof v); }
TRISCALE_INLINE void store(Bf16* p, Half32 v, Full) {
  const __m512bh both = _mm512_cvtne2ps_pbh((__m512)second_half(v), (__m512)first_half(v));
  memcpy(p, &both, sizeof both);
}
TRISCALE_INLINE void store(Bf16* p, Half16 v, Full) { store(p, widen(v), Full{}); }
TRISCALE_INLINE void store(Fp16* p, Vec v, Full) { store(p, halved(v), Full{}); }
TRISCALE_INLINE void store(Fp16* p, Vec v, First lanes) { _mm256_mask_storeu_epi16(p, lanes.mask, (__m256i)halved(v)); }
TRISCALE_INLINE void put(Fp16* to, float value) { to->value = static_cast<_Float16>(value); }

TRISCALE_INLINE Half32 kept(Half32 v) {
  asm("" : "+v"(v));
  return v;
}
TRISCALE_INLINE Half16 kept(Half16 v) {
  asm("" : "+v"(v));
  return v;
}

TRISCALE_INLINE void add_to_sums(Vec* sums, Half16 v) { sums[0] += widen(v); }
TRISCALE_INLINE void add_to_sums(Vec* sums, Half32 v) {
  sums[0] += first_half(v);
  sums[1] += second_half(v);
}

// What is no number stays none.
TRISCALE_INLINE Half32 cut(Half32 v, Half32 low, Half32 high) {
  return (Half32)_mm512_min_ph((__m512h)high, _mm512_max_ph((__m512h)low, (__m512h)v));
}
TRISCALE_INLINE Half16 cut(Half16 v, Half16 low, Half16 high) {
  return (Half16)_mm256_min_ph((__m256h)high, _mm256_max_ph((__m256h)low, (__m256h)v));
}

// As in activations.h.
TRISCALE_INLINE Half32 above_whole(Half32 t) { return (Half32)_mm512_reduce_ph((__m512h)t, 0x09); }
TRISCALE_INLINE Half16 above_whole(Half16 t) { return (Half16)_mm256_reduce_ph((__m256h)t, 0x09); }
TRISCALE_INLINE Half32 times_power(Half32 q, Half32 t) { return (Half32)_mm512_scalef_ph((__m512h)q, (__m512h)t); }
TRISCALE_INLINE Half16 times_power(Half16 q, Half16 t) { return (Half16)_mm256_scalef_ph((__m256h)q, (__m256h)t); }
TRISCALE_INLINE Half32 inverse(Half32 v) { return (Half32)_mm512_rcp_ph((__m512h)v); }
TRISCALE_INLINE Half16 inverse(Half16 v) { return (Half16)_mm256_rcp_ph((__m256h)v); }

#endif

template <class T>
using Sum = typename Summed<T>::type;

// Whether they are one type.
template <class A, class B>
struct Same {
  static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
  static constexpr bool value = true;
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
