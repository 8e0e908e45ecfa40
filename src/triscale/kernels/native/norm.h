// Batch normalisation in training joined with its activation. Included by kernels.cpp.
//
// A tensor is rows of channels. Where the channels do not fill whole vectors, several rows are taken as one: 24 channels
// and vectors of 16 make "periods" of 48 values, and no lane is idle. What belongs to a channel is repeated accordingly.
//
// The output's activation is not stored: its derivative is computed anew from the input, which costs less than reading.
// The first of two passes over a tensor goes from its end to its beginning: what was written last is in the cache still,
// and so is for the second what the first read last.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// Calls block(number of rows as a type, offset, offset in the period, lanes) for every vector of the values [from, to),
// which begin with the first channel: in groups of rows, whose loads and long dependent chains overlap. Calls flush()
// every kSingle rows and at the end.
template <int GROUP = kVectorsAtOnce, class Block, class Flush>
TRISCALE_INLINE void in_groups(long from, long to, long period, Block block, Flush flush) {
  long at = from;
  for (long rows = GROUP; at + GROUP * period <= to; at += GROUP * period, rows += GROUP) {
    for (long c = 0; c < period; c += kLanes) block(Number<GROUP>{}, at + c, c, Full{});
    if (rows % kSingle == 0) flush();
  }
  for (long c = 0; at + kLanes <= to; at += kLanes) {
    block(Number<1>{}, at, c, Full{});
    c = c + kLanes < period ? c + kLanes : 0;
  }
  if (at < to) block(Number<1>{}, at, (at - from) % period, First(to - at));
  flush();
}

// Stores a vector of each row of a group. All at once: between the loads of one row and the next, stores make them wait.
template <int N, class T, class L>
TRISCALE_INLINE void store_rows(const Vec (&values)[N], T* out, long period, L lanes) {
  TRISCALE_UNROLL for (int i = 0; i < N; i++) store(out + i * period, values[i], lanes);
}

// How a tensor is cut into periods, those into chunks (summed in single precision), and the chunks into runs (summed in
// double, one after another). Depends on the shape alone: so do the bits of the result.
struct Periods {
  long channels, copies, length, whole, rest, rows_at_once, chunks, runs;

  Periods(long rows, long channels_) : channels(channels_) {
    copies = 1;
    while (channels * copies % kLanes != 0) copies++;
    length = channels * copies;
    whole = rows / copies;
    rest = rows % copies * channels;
    rows_at_once = max_of(8, min_of(512, 16384 / length / 8 * 8));
    chunks = max_of(1, (whole + rows_at_once - 1) / rows_at_once);
    runs = min_of(chunks, 64);
  }

  // (channels) → (length).
  template <class Value>
  void repeat(float* out, Value value) const {
    for (long i = 0; i < length; i += channels) {  // no i % channels: divisions show where tensors are small
      for (long c = 0; c < channels; c++) out[i + c] = static_cast<float>(value(c));
    }
  }

  // `in_groups` for a chunk; what is left of the tensor comes with the last.
  template <class Block, class Flush>
  void each(long chunk, Block block, Flush flush) const {
    const long row = chunk * rows_at_once;
    const long to = chunk < chunks - 1 ? (row + rows_at_once) * length : whole * length + rest;
    in_groups(row * length, to, length, block, flush);
  }

  template <class Block>
  void each(long chunk, Block block) const {
    each(chunk, block, [] {});
  }
};

// Calls block(offset, offset in the period, lanes) for every vector of n values that begin with the first channel.
template <class Block>
TRISCALE_INLINE void walk(long n, long period, Block block) {
  long at = 0, c = 0;
  for (; at + kLanes <= n; at += kLanes) {
    block(at, c, Full{});
    c = c + kLanes < period ? c + kLanes : 0;
  }
  if (at < n) block(at, c, First(n - at));
}

// Adds values of a period to sums in double and clears them.
inline void drain(float* values, long n, double* sums) {
  add_to(sums, values, n);
  memset(values, 0, n * sizeof(float));
}

// Two sums for every channel. add(first, second, rows, value, offset, lanes) adds a vector of so many rows to both.
template <class Add>
int two_sums(const Periods& p, int threads, double* out, Add add) {
  const long size = 2 * p.length;
  Scratch scratch(p.runs * size * (sizeof(double) + sizeof(float)));
  if (!scratch.ok()) return kNoMemory;
  double* sums = scratch.at<double>(0);
  float* partial = scratch.at<float>(p.runs * size * sizeof(double));
  for_each(p.runs, threads, [&](long task) {
    const long run = p.runs - 1 - task;
    double* own = sums + run * size;
    float* single = partial + run * size;
    memset(own, 0, size * sizeof(double));
    memset(single, 0, size * sizeof(float));
    for (long chunk = p.chunks * (run + 1) / p.runs; chunk-- > p.chunks * run / p.runs;) {
      p.each(chunk, [&](auto rows, long at, long c, auto lanes) {
        Vec first = load(single + c, Full{}), second = load(single + p.length + c, Full{});
        add(first, second, rows, at, c, lanes);
        store(single + c, first, Full{});
        store(single + p.length + c, second, Full{});
      }, [&] { drain(single, size, own); });
    }
  });
  for (long c = 0; c < p.channels; c++) {
    double first = 0, second = 0;
    for (long run = 0; run < p.runs; run++) {
      for (long i = c; i < p.length; i += p.channels) {
        first += sums[run * size + i];
        second += sums[run * size + p.length + i];
      }
    }
    out[c] = first, out[p.channels + c] = second;
  }
  return kDone;
}

// Lanes that are not there must not add what padding with zeros would give.
TRISCALE_INLINE Vec only(Vec v, Full) { return v; }
TRISCALE_INLINE Vec only(Vec v, First lanes) {
  float values[kLanes] = {};
  store(values, v, lanes);
  return load(values, Full{});
}

TRISCALE_INLINE float value_of(const float* p) { return *p; }
TRISCALE_INLINE float value_of(const Bf16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// The mean of a few rows from all over the tensor, at no fixed distance: that might meet nothing but corners of images.
// Sums of squares around it lose no digits where a channel's values are all far from 0.
template <class T>
void pivots(const T* x, long rows, long channels, float* out) {
  const long taken = min_of(rows, 16);
  for (long c = 0; c < channels; c++) out[c] = 0;
  for (long i = 1; i <= taken; i++) {
    const uint64_t place = static_cast<uint32_t>(i * 2654435769u);  // 2^32 over the golden ratio
    const T* row = x + static_cast<long>(place * static_cast<uint64_t>(rows) >> 32) * channels;
    for (long c = 0; c < channels; c++) out[c] += value_of(row + c);
  }
  for (long c = 0; c < channels; c++) out[c] /= static_cast<float>(taken);
}

// Square root by the processor: the C library's may set errno, and this file must not call C++'s.
inline double root(double v) { return __builtin_sqrt(v); }

// Sums of x − around, and of its squares, for every channel.
template <class T>
int sums_around(const T* x, const Periods& p, const float* around, float* repeated, int threads, double* sums) {
  p.repeat(repeated, [&](long c) { return around[c]; });
  return two_sums(p, threads, sums, [&](Vec& sum, Vec& squares, auto n, long at, long c, auto lanes) {
    const Vec pivot = load(repeated + c, Full{});
    Pairs<decltype(n)::value> values, squared;
    TRISCALE_UNROLL for (int i = 0; i < decltype(n)::value; i++) {
      const Vec v = only(load(x + at + i * p.length, lanes) - pivot, lanes);
      values.add(i, v, sum);
      squared.add(i, v * v, squares);
    }
  });
}

template <class T>
int statistics_of(const T* x, long rows, const Periods& p, double epsilon, int threads, float* statistics) {
  Scratch scratch(p.length * sizeof(float) + p.channels * (2 * sizeof(double) + sizeof(float)));
  if (!scratch.ok()) return kNoMemory;
  double* sums = scratch.at<double>(0);
  float* around = scratch.at<float>(2 * p.channels * sizeof(double));
  pivots(x, rows, p.channels, around);
  const double n = static_cast<double>(rows);
  // Squares around what is far from the mean are mostly its distance, which is then taken off again. Where so much of
  // them is, and the few rows were like no others, all is summed once more around the mean itself.
  constexpr double kFar = 4;
  for (int turn = 0; turn < 2; turn++) {
    if (int failed = sums_around(x, p, around, around + p.channels, threads, sums)) return failed;
    bool far = false;
    for (long c = 0; c < p.channels; c++) {
      const double shift = sums[c] / n, spread = sums[p.channels + c] / n - shift * shift;
      const double variance = spread > 0 ? spread : spread != spread ? spread : 0;
      far |= shift * shift > kFar * (variance + epsilon);
      around[c] = static_cast<float>(around[c] + shift);
      statistics[c] = around[c];
      statistics[p.channels + c] = static_cast<float>(1 / root(variance + epsilon));
      statistics[2 * p.channels + c] = static_cast<float>(rows > 1 ? variance * n / (n - 1) : variance);
    }
    if (!far) break;
  }
  return kDone;
}

// What normalisation does to every value, z = (x − mean)·factor + bias, for a period.
struct Affine {
  const float *mean, *factor, *bias;

  static long size(const Periods& p) { return 3 * p.length; }

  Affine(const Periods& p, const float* weight, const float* bias_, const float* statistics, float* room)
      : mean(room), factor(room + p.length), bias(room + 2 * p.length) {
    p.repeat(room, [&](long c) { return statistics[c]; });
    p.repeat(room + p.length, [&](long c) { return weight[c] * statistics[p.channels + c]; });
    p.repeat(room + 2 * p.length, [&](long c) { return bias_[c]; });
  }

  TRISCALE_INLINE Vec away(Vec x, long c) const { return x - load(mean + c, Full{}); }
};

// y = activation((x − mean)·rstd·weight + bias). statistics: (3, channels), the means, 1/√(variance + epsilon) and the
// unbiased variances.
template <Activation ACT, class T>
int norm_of(long rows, long channels, double epsilon, int threads, const T* x, const float* weight, const float* bias,
            T* y, float* statistics) {
  const Periods p(rows, channels);
  if (int failed = statistics_of(x, rows, p, epsilon, threads, statistics)) return failed;
  Scratch scratch(Affine::size(p) * sizeof(float));
  if (!scratch.ok()) return kNoMemory;
  const Affine affine(p, weight, bias, statistics, scratch.at<float>(0));
  for_each(p.chunks, threads, [&](long chunk) {
    p.each(chunk, [&](auto n, long at, long c, auto lanes) {
      const Vec mean = load(affine.mean + c, Full{}), factor = load(affine.factor + c, Full{});
      const Vec shift = load(affine.bias + c, Full{});
      TRISCALE_UNROLL for (int i = 0; i < decltype(n)::value; i++) {
        const Vec z = (load(x + at + i * p.length, lanes) - mean) * factor + shift;
        store(y + at + i * p.length, activate<ACT, T>(z), lanes);
      }
    });
  });
  return kDone;
}

// What is left once the sums of g, the gradient before the activation, and of g·(x − mean) are known: the gradients of
// weight and bias, and of the input, factor·(g − mean of g − (x − mean)·rstd²·mean of g·(x − mean)).
// g(offset, x − mean, offset in the period, lanes) gives the gradient; it may have been left where grad_x is written.
template <class T, class Gradient>
int norm_gradients(const Periods& p, long rows, int threads, const Affine& affine, const float* weight,
                   const float* statistics, const double* sums, const T* x, T* grad_x, float* grad_weight,
                   float* grad_bias, Gradient g) {
  const long channels = p.channels;
  const double n = static_cast<double>(rows);
  for (long c = 0; c < channels; c++) {
    grad_bias[c] = static_cast<float>(sums[c]);
    grad_weight[c] = static_cast<float>(sums[channels + c] * statistics[channels + c]);
  }
  if (grad_x == nullptr) return kDone;
  Scratch scratch(2 * p.length * sizeof(float));
  if (!scratch.ok()) return kNoMemory;
  float *constants = scratch.at<float>(0), *slopes = constants + p.length;
  p.repeat(constants, [&](long c) { return -sums[c] / n * weight[c] * statistics[channels + c]; });
  p.repeat(slopes, [&](long c) {
    const double rstd = statistics[channels + c];
    return -sums[channels + c] / n * rstd * rstd * rstd * weight[c];
  });
  for_each(p.chunks, threads, [&](long chunk) {
    p.each(chunk, [&](auto count, long at, long c, auto lanes) {
      const Vec mean = load(affine.mean + c, Full{}), factor = load(affine.factor + c, Full{});
      const Vec constant = load(constants + c, Full{}), tilt = load(slopes + c, Full{});
      TRISCALE_UNROLL for (int i = 0; i < decltype(count)::value; i++) {
        const long here = at + i * p.length;
        const Vec away = load(x + here, lanes) - mean;
        store(grad_x + here, g(here, away, c, lanes) * factor + (away * tilt + constant), lanes);
      }
    });
  });
  return kDone;
}

template <Activation ACT, class T>
int norm_backward_of(long rows, long channels, int threads, const T* grad, const T* x, const float* weight,
                     const float* bias, const float* statistics, T* grad_x, float* grad_weight, float* grad_bias) {
  const Periods p(rows, channels);
  Scratch scratch(2 * channels * sizeof(double) + Affine::size(p) * sizeof(float));
  if (!scratch.ok()) return kNoMemory;
  double* sums = scratch.at<double>(0);
  const Affine affine(p, weight, bias, statistics, scratch.at<float>(2 * channels * sizeof(double)));
  // Where lanes are missing the gradient loads as 0.
  auto gradient = [&](long at, Vec z, auto lanes) { return load(grad + at, lanes) * slope<ACT, T>(z); };
  // A slope that is dear is not computed twice: the gradient before the activation waits where its place will be. It is
  // summed as it waits: what rounding took of equal gradients would not cancel with their mean.
  constexpr bool kDear = ACT == kSilu || ACT == kHardswish;
  const bool kept = kDear && grad_x != nullptr;
  const int failed = two_sums(p, threads, sums, [&](Vec& sum, Vec& product, auto n, long at, long c, auto lanes) {
    const Vec mean = load(affine.mean + c, Full{}), factor = load(affine.factor + c, Full{});
    const Vec shift = load(affine.bias + c, Full{});
    Pairs<decltype(n)::value> gradients, products;
    Vec found[decltype(n)::value];
    TRISCALE_UNROLL for (int i = 0; i < decltype(n)::value; i++) {
      const long here = at + i * p.length;
      const Vec away = load(x + here, lanes) - mean;
      found[i] = gradient(here, away * factor + shift, lanes);
      const Vec g = kDear ? rounded<T>(found[i]) : found[i];
      gradients.add(i, g, sum);
      products.add(i, g * away, product);
    }
    if (kept) store_rows(found, grad_x + at, p.length, lanes);
  });
  if (failed) return failed;
  return norm_gradients(p, rows, threads, affine, weight, statistics, sums, x, grad_x, grad_weight, grad_bias,
                        [&](long at, Vec away, long c, auto lanes) {
                          if (kDear) return load(grad_x + at, lanes);
                          return gradient(at, away * load(affine.factor + c, Full{}) + load(affine.bias + c, Full{}), lanes);
                        });
}

// `with_activation`; declines what is none.
template <class Call>
inline int with_known_activation(int64_t activation, Call call) {
  return is_activation(activation) ? with_activation(activation, call) : static_cast<int>(kDeclined);
}

int norm(int64_t rows, int64_t channels, int64_t activation, double epsilon, int bf16, int threads, const void* x,
         const float* weight, const float* bias, void* y, float* statistics) {
  return with_known_activation(activation, [&](auto act) {
    return with_values(bf16, [&](auto value) {
      using T = decltype(value);
      return norm_of<decltype(act)::value>(rows, channels, epsilon, threads, static_cast<const T*>(x), weight, bias,
                                           static_cast<T*>(y), statistics);
    });
  });
}

int norm_backward(int64_t rows, int64_t channels, int64_t activation, int bf16, int threads, const void* grad,
                  const void* x, const float* weight, const float* bias, const float* statistics, void* grad_x,
                  float* grad_weight, float* grad_bias) {
  return with_known_activation(activation, [&](auto act) {
    return with_values(bf16, [&](auto value) {
      using T = decltype(value);
      return norm_backward_of<decltype(act)::value>(rows, channels, threads, static_cast<const T*>(grad),
                                                    static_cast<const T*>(x), weight, bias, statistics,
                                                    static_cast<T*>(grad_x), grad_weight, grad_bias);
    });
  });
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
