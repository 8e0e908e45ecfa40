// The passes of squeeze-excite over whole tensors, (images, pixels, channels): averages, scaling, products. Included by
// kernels.cpp. The two small linear layers between them are products of products.h.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// For every channel of an image the sum over its pixels of value(position, lanes), times `factor`.
template <class Value>
inline void sum_pixels(long pixels, long channels, float factor, float* out, Value value) {
  each_vector(channels, [&](long c, auto lanes) {
    double totals[kLanes] = {};
    constexpr long kPixelsInSingle = 128;
    for (long start = 0; start < pixels; start += kPixelsInSingle) {
      Vec sum = all(0);
      const long end = min_of(pixels, start + kPixelsInSingle);
      long p = start;
      for (; p + kVectorsAtOnce <= end; p += kVectorsAtOnce) {
        Pairs<kVectorsAtOnce> terms;
        TRISCALE_UNROLL for (int i = 0; i < kVectorsAtOnce; i++) terms.add(i, value((p + i) * channels + c, lanes), sum);
      }
      for (; p < end; p++) sum += value(p * channels + c, lanes);
      float values[kLanes];
      store(values, sum, Full{});
      add_to(totals, values, kLanes);
    }
    float sums[kLanes];
    for (int i = 0; i < kLanes; i++) sums[i] = static_cast<float>(totals[i]) * factor;
    store(out + c, load(sums, Full{}), lanes);
  });
}

template <class T>
int pool_of(long images, long pixels, long channels, int threads, const T* x, float* means) {
  const float share = 1.0f / static_cast<float>(pixels);
  for_each(images, threads, [&](long n) {
    const T* image = x + n * pixels * channels;
    sum_pixels(pixels, channels, share, means + n * channels, [&](long at, auto lanes) { return load(image + at, lanes); });
  });
  return kDone;
}

template <class T>
int dot_of(long images, long pixels, long channels, int threads, const T* x, const T* grad, float* sums) {
  for_each(images, threads, [&](long n) {
    const T *one = x + n * pixels * channels, *other = grad + n * pixels * channels;
    sum_pixels(pixels, channels, 1.0f, sums + n * channels,
               [&](long at, auto lanes) { return load(one + at, lanes) * load(other + at, lanes); });
  });
  return kDone;
}

// y = x·factor, plus a term where there are any; one factor and term for every channel of an image.
template <class T>
int scale_of(long images, long pixels, long channels, int threads, const T* x, const float* factors,
             const float* terms, T* y) {
  for_each(images, threads, [&](long n) {
    const long image = n * pixels * channels;
    for (long start = 0; start < pixels; start += 8) {
      const long count = min_of(8, pixels - start);
      each_vector(channels, [&](long c, auto lanes) {
        const Vec factor = load(factors + n * channels + c, lanes);
        const Vec term = terms == nullptr ? all(0) : load(terms + n * channels + c, lanes);
        for (long i = 0; i < count; i++) {
          const long at = image + (start + i) * channels + c;
          store(y + at, load(x + at, lanes) * factor + term, lanes);
        }
      });
    }
  });
  return kDone;
}

int pool(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x, float* means) {
  return with_values(bf16, [&](auto value) {
    return pool_of(images, pixels, channels, threads, static_cast<const decltype(value)*>(x), means);
  });
}

int scale(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x, const float* factors,
          const float* terms, void* y) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return scale_of(images, pixels, channels, threads, static_cast<const T*>(x), factors, terms, static_cast<T*>(y));
  });
}

int dot(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x, const void* grad,
        float* sums) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return dot_of(images, pixels, channels, threads, static_cast<const T*>(x), static_cast<const T*>(grad), sums);
  });
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
