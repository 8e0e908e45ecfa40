// Activations, as training and the engine compute them. Included by kernels.cpp and by layers.cpp, there after halves.h.
//
// SiLU is computed in two ways. Training has z·σ(z), by the σ that the slope is made of as well. The engine has no slopes:
// where there are AVX-512's powers of two it divides, or takes a coarser polynomial in half precision, and is faster so.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// An activation as a type.
template <Activation ACT>
struct Act {
  static constexpr Activation value = ACT;
};

inline bool is_activation(int64_t number) { return number >= kNone && number <= kSilu; }

// Calls call(the activation as a type); what is none counts as `kNone`.
template <class Call>
TRISCALE_INLINE auto with_activation(int64_t activation, Call call) {
  switch (activation) {
    case kRelu: return call(Act<kRelu>{});
    case kRelu6: return call(Act<kRelu6>{});
    case kHardswish: return call(Act<kHardswish>{});
    case kSilu: return call(Act<kSilu>{});
    default: return call(Act<kNone>{});
  }
}

// All but SiLU, of a vector of any type. Compared so that what is no number stays none.
template <Activation ACT, class V>
TRISCALE_INLINE V cut_off(V v) {
  const V zero = Get<V>::all_of(0), six = Get<V>::all_of(6);
  if (ACT == kRelu) return v < zero ? zero : v;
  if (ACT == kRelu6) {
    const V positive = v < zero ? zero : v;
    return positive > six ? six : positive;
  }
  if (ACT == kHardswish) {
    const V shifted = v + Get<V>::all_of(3), positive = shifted < zero ? zero : shifted;
    const V capped = positive > six ? six : positive, sixth = Get<V>::all_of(1.0f / 6.0f);
    // In half precision six times v would end where v is a sixth of the largest number.
    if constexpr (sizeof(v[0]) < sizeof(float)) return v * (capped * sixth);
    return v * capped * sixth;
  }
  return v;
}

// In training. T: what values are kept as, and how exactly.
template <Activation ACT, class T>
TRISCALE_INLINE Vec activate(Vec z) {
  return ACT == kSilu ? z * logistic<T>(z) : cut_off<ACT>(z);
}

// The derivative.
template <Activation ACT, class T>
TRISCALE_INLINE Vec slope(Vec z) {
  if (ACT == kSilu) {
    Vec s = logistic<T>(z);
    return s + z * s * (1.0f - s);
  }
  if (ACT == kRelu) return z > 0.0f ? all(1) : all(0);
  if (ACT == kRelu6) return z > 0.0f ? (z < 6.0f ? all(1) : all(0)) : all(0);
  if (ACT == kHardswish) {
    Vec inner = z * (1.0f / 3) + 0.5f;
    return z <= -3.0f ? all(0) : (z < 3.0f ? inner : all(1));
  }
  return all(1);
}

// Both, where a part serves both.
template <Activation ACT, class T>
TRISCALE_INLINE void activate_and_slope(Vec z, Vec& active, Vec& slope_) {
  if (ACT == kSilu) {
    const Vec s = logistic<T>(z);
    active = z * s;
    slope_ = s + active * (1.0f - s);
  } else {
    active = activate<ACT, T>(z);
    slope_ = slope<ACT, T>(z);
  }
}

#if defined(__AVX512F__)
// t less the whole number below; q·2^t, of which only that whole number counts; about 1/v.
TRISCALE_INLINE Vec above_whole(Vec t) { return (Vec)_mm512_reduce_ps((__m512)t, 0x09); }
TRISCALE_INLINE Vec times_power(Vec q, Vec t) { return (Vec)_mm512_scalef_ps((__m512)q, (__m512)t); }
TRISCALE_INLINE Vec inverse(Vec v) { return (Vec)_mm512_rcp14_ps((__m512)v); }

// v / (1 + e^-v) for half precision: to 1.4e-4 of itself in vectors of floats (bf16's own step is 4e-3), to some 2^-10 in
// those of fp16. Where e^-v overflows, in fp16 below -11, it is −0.
template <class V>
TRISCALE_INLINE V coarse_silu(V v) {
  const V t = v * Get<V>::all_of(-1.442695041f), f = above_whole(t);
  V q = f * Get<V>::all_of(7.802433e-2f) + Get<V>::all_of(2.260671e-1f);  // 2^f, minimax, relative, for 0 ≤ f ≤ 1
  q = q * f + Get<V>::all_of(6.958338e-1f);
  q = q * f + Get<V>::all_of(9.999252e-1f);
  return v * inverse(Get<V>::all_of(1) + times_power(q, t));
}

// The same for fp32, to 3e-7 of itself.
TRISCALE_INLINE Vec fine_silu(Vec v) {
  const Vec t = v * -1.442695041f, n = (Vec)_mm512_roundscale_ps((__m512)t, 0x08);
  // Divisions take turns with products: faster than an estimate and its Newton step.
  return v / (1.0f + times_power(exp2_near_0<float>(t - n), n));
}

template <class T, class V>
TRISCALE_INLINE V silu(V v) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return fine_silu(v);
  } else {
    return coarse_silu(v);
  }
}
#else
template <class T>
TRISCALE_INLINE Vec silu(Vec v) {
  return v * logistic<T>(v);
}
#endif

// In the engine, of a vector of any type.
template <class T, Activation ACT, class V>
TRISCALE_INLINE V activated(V v) {
  if constexpr (ACT == kSilu) {
    return silu<T>(v);
  } else {
    return cut_off<ACT>(v);
  }
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
