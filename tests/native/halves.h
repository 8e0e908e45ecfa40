// AVX512-FP16 for processors that do not compute fp16: the intrinsics that the engine uses, in single precision and rounded.
// Put before a source of the kernels by a test. (Sums and products of vectors of _Float16 are the compiler's.)

#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __AVX512FP16__ 1

namespace emulated {

template <class V, class Compute>
inline __attribute__((always_inline)) V each(V a, V b, Compute compute) {
  _Float16 left[sizeof(V) / 2], right[sizeof(V) / 2];
  memcpy(left, &a, sizeof a), memcpy(right, &b, sizeof b);
  for (unsigned i = 0; i < sizeof(V) / 2; i++) left[i] = static_cast<_Float16>(compute(static_cast<float>(left[i]), static_cast<float>(right[i])));
  memcpy(&a, left, sizeof a);
  return a;
}

// The second where either is no number, as the instructions do.
inline float lower(float a, float b) { return a < b ? a : b; }
inline float higher(float a, float b) { return a > b ? a : b; }
inline float inverse(float, float b) { return 1 / b; }
inline float scaled(float a, float b) { return isinf(b) || isnan(b) ? a * exp2f(b) : ldexpf(a, static_cast<int>(floorf(b))); }
inline float above_whole(float, float b) { return isinf(b) ? 0 : b - floorf(b); }

}  // namespace emulated

#define TRISCALE_EMULATE(name, type, compute) \
  inline __attribute__((always_inline)) type name(type a, type b) { return emulated::each(a, b, emulated::compute); }
#define _mm512_min_ph emulated_min_512
#define _mm256_min_ph emulated_min_256
#define _mm512_max_ph emulated_max_512
#define _mm256_max_ph emulated_max_256
#define _mm512_scalef_ph emulated_scalef_512
#define _mm256_scalef_ph emulated_scalef_256
#define _mm512_rcp_ph(v) emulated_rcp_512(v, v)
#define _mm256_rcp_ph(v) emulated_rcp_256(v, v)
#undef _mm512_reduce_ph
#undef _mm256_reduce_ph
#define _mm512_reduce_ph(v, kind) emulated_reduce_512(v, v)
#define _mm256_reduce_ph(v, kind) emulated_reduce_256(v, v)
TRISCALE_EMULATE(emulated_min_512, __m512h, lower)
TRISCALE_EMULATE(emulated_min_256, __m256h, lower)
TRISCALE_EMULATE(emulated_max_512, __m512h, higher)
TRISCALE_EMULATE(emulated_max_256, __m256h, higher)
TRISCALE_EMULATE(emulated_scalef_512, __m512h, scaled)
TRISCALE_EMULATE(emulated_scalef_256, __m256h, scaled)
TRISCALE_EMULATE(emulated_rcp_512, __m512h, inverse)
TRISCALE_EMULATE(emulated_rcp_256, __m256h, inverse)
TRISCALE_EMULATE(emulated_reduce_512, __m512h, above_whole)
TRISCALE_EMULATE(emulated_reduce_256, __m256h, above_whole)
