// Depthwise convolution over whole tensors, and how they are cut. Included by kernels.cpp.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// Calls call(kernel, stride) with both as types, for what there are kernels for; declines everything else, and
// fewer channels than a vector without masks holds.
template <class Call>
inline int with_kernel(const DepthwiseShape& s, Call call) {
  if (!enough(s.channels)) return kDeclined;
  switch (s.stride <= 2 ? s.kernel * 10 + s.stride : 0) {
    case 31: return call(Number<3>{}, Number<1>{});
    case 32: return call(Number<3>{}, Number<2>{});
    case 51: return call(Number<5>{}, Number<1>{});
    case 52: return call(Number<5>{}, Number<2>{});
    case 71: return call(Number<7>{}, Number<1>{});
    case 72: return call(Number<7>{}, Number<2>{});
    default: return kDeclined;
  }
}

// The input rows that outputs [from, to) see.
inline void seen_by(const DepthwiseShape& s, long from, long to, long& first, long& last) {
  first = min_of(s.height, max_of(0, from * s.stride - s.top));
  last = max_of(first, min_of(s.height, (to - 1) * s.stride - s.top + s.kernel));
}

// How a forward pass is cut: every image into parts, and those into strips whose input stays in the cache.
struct Strips {
  long rows_at_once, parts, most_rows;

  explicit Strips(const DepthwiseShape& s) {
    const long rows = 65536 / (s.width * s.channels);
    rows_at_once = max_of(1, min_of(s.out_height, (rows - s.kernel) / s.stride + 1));
    parts = min_of((64 + s.images - 1) / s.images, (s.out_height + rows_at_once - 1) / rows_at_once);
    most_rows = min_of(s.height, (rows_at_once - 1) * s.stride + s.kernel);
  }
};

// Tasks run side by side: whichever finds no memory says so here.
class Failure {
 public:
  void set() { __atomic_store_n(&code_, kNoMemory, __ATOMIC_RELAXED); }
  int code() const { return __atomic_load_n(&code_, __ATOMIC_RELAXED); }

 private:
  int code_ = kDone;
};

template <int K, int S, class T>
int depthwise_of(const DepthwiseShape& s, int threads, const T* x, const Making<T>* making, const float* weight, T* y) {
  const long step = round_up(s.channels, kLanes);
  Scratch scratch(K * K * step * sizeof(float));
  if (!scratch.ok()) return kNoMemory;
  float* taps = scratch.at<float>(0);
  transpose_weight(weight, s.channels, K * K, false, taps);
  const int block = block_width(s.out_width);
  const Strips strips(s);
  Failure failure;
  for_each(s.images * strips.parts, threads, [&](long task) {
    const long n = task / strips.parts, part = task % strips.parts;
    // Asked for here and not before: the memory that a thread gives back is in its cache when it asks again.
    Scratch own(strips.most_rows * s.width * s.channels * sizeof(float));
    if (!own.ok()) return failure.set();
    Rows<T> rows(s.height, s.width * s.channels, x, making, strips.most_rows, false, own.at<float>(0));
    const long end = s.out_height * (part + 1) / strips.parts;
    for (long from = s.out_height * part / strips.parts; from < end; from += strips.rows_at_once) {
      const long to = min_of(end, from + strips.rows_at_once);
      long first, last;
      seen_by(s, from, to, first, last);
      const Seen seen = rows.get(n, 1, first, last);
      const Plane plane{s.height - seen.first, s.width, s.channels};
      for (long r = from; r < to; r++) {
        any_row<K, S>(block, seen.rows, plane, taps, step, r * S - s.top - seen.first, s.left, s.out_width,
                      y + (n * s.out_height + r) * s.out_width * s.channels);
      }
    }
  });
  return failure.code();
}

// How a backward pass is cut: into units that stay in the cache (counted as they lie in memory) while weights and inputs
// get their gradients, and the units into runs, each with sums of its own. Depends on shapes alone: so do the bits of the
// result.
struct Cut {
  long images_at_once, rows_at_once, strips, units, runs;

  Cut(const DepthwiseShape& s, long value_bytes) {
    constexpr long kCache = 256 * 1024;
    const long image = (s.height * s.width + s.out_height * s.out_width) * s.channels * value_bytes;
    images_at_once = max_of(1, min_of(min_of(kCache / max_of(1, image), s.images), max_of(1, s.images / 16)));
    strips = images_at_once > 1 ? 1 : min_of(s.out_height, (image + kCache - 1) / kCache);
    rows_at_once = (s.out_height + strips - 1) / strips;
    strips = (s.out_height + rows_at_once - 1) / rows_at_once;
    units = (s.images + images_at_once - 1) / images_at_once * strips;
    // Sums are kept in double, and should be little beside the tensors they are made of.
    const long sums = s.kernel * s.kernel * s.channels * 8;
    runs = max_of(1, min_of(min_of(units, 64), max_of(4, s.images * image / (8 * sums))));
  }

  Unit unit(const DepthwiseShape& s, long i) const {
    const long image = i / strips * images_at_once, row = i % strips * rows_at_once;
    return {image, min_of(images_at_once, s.images - image), row, min_of(rows_at_once, s.out_height - row)};
  }

  // The input rows whose gradients a unit makes.
  static void makes(const DepthwiseShape& s, const Unit& unit, long& from, long& to) {
    from = min_of(unit.row * s.stride, s.height);
    to = unit.row + unit.rows == s.out_height ? s.height : min_of((unit.row + unit.rows) * s.stride, s.height);
  }

  // The input rows that it needs: those, and what its outputs see.
  static void needs(const DepthwiseShape& s, const Unit& unit, long& first, long& last) {
    long from, to;
    makes(s, unit, from, to);
    seen_by(s, unit.row, unit.row + unit.rows, first, last);
    first = min_of(first, from), last = max_of(last, to);
  }

  // The output rows whose gradients it needs: its own, and those that see the inputs that it makes.
  static void reads(const DepthwiseShape& s, const Unit& unit, long& first, long& last) {
    long from, to;
    makes(s, unit, from, to);
    first = min_of(unit.row, max_of(0, (from + s.top - s.kernel + s.stride) / s.stride));
    last = max_of(unit.row + unit.rows, min_of(s.out_height, (to - 1 + s.top) / s.stride + 1));
  }

  // The most rows that any unit needs, of the input and of the output's gradient.
  void most_rows(const DepthwiseShape& s, long& inputs, long& outputs) const {
    inputs = images_at_once * s.height, outputs = images_at_once * s.out_height;
    if (strips == 1) return;
    inputs = outputs = 0;
    for (long i = 0; i < strips; i++) {
      long first, last;
      needs(s, unit(s, i), first, last);
      inputs = max_of(inputs, last - first);
      reads(s, unit(s, i), first, last);
      outputs = max_of(outputs, last - first);
    }
  }
};

// Where a run of a backward pass sums what the normalisation's gradients need: for a period, g and g·(x − mean).
struct NormSums {
  const Affine* affine;
  long period;
  float* single;
  double* totals;
  long waiting;  // values whose sums are in single precision still

  // g = the gradient after the activation times its slopes, for one row; stored where the input's gradient will be, and
  // summed as it is stored.
  template <class T>
  void take(const float* grad, const float* slopes, const T* x, long n, T* out) {
    in_groups(0, n, period, [&](auto count, long at, long c, auto lanes) {
      const Vec mean = load(affine->mean + c, Full{});
      Vec sum = load(single + c, Full{}), product = load(single + period + c, Full{});
      Pairs<decltype(count)::value> gradients, products;
      TRISCALE_UNROLL for (int i = 0; i < decltype(count)::value; i++) {
        const long here = at + i * period;
        const Vec found = load(grad + here, lanes) * load(slopes + here, lanes), g = rounded<T>(found);
        store(out + here, found, lanes);
        gradients.add(i, g, sum);
        products.add(i, g * (load(x + here, lanes) - mean), product);
      }
      store(single + c, sum, Full{});
      store(single + period + c, product, Full{});
    }, [&] {
      if ((waiting += n) >= kSingle * period) settle();
    });
  }

  void settle() {
    drain(single, 2 * period, totals);
    waiting = 0;
  }
};

// The input's gradients of a unit. `line`: room for a row, where they are not written as they are.
template <int K, int S, class T>
inline void inputs_of(const Seen& grads, const T* x, const DepthwiseShape& s, const Unit& unit, const float* taps, long step,
                      int block, const Seen& seen, const float* slopes, NormSums* norm, float* line, T* grad_x) {
  const Plane plane{s.out_height - grads.first, s.out_width, s.channels};
  const long size = s.width * s.channels;
  long from, to;
  Cut::makes(s, unit, from, to);
  for (long n = unit.image; n < unit.image + unit.images; n++) {
    const float* image = grads.rows + (n - unit.image) * grads.count * s.out_width * s.channels;
    for (long row = from; row < to; row++) {
      T* out = grad_x + (n * s.height + row) * size;
      float* found = line;
      if constexpr (sizeof(T) == sizeof(float)) found = norm == nullptr ? out : line;
      if constexpr (S == 1) {
        // At stride 1 the input's gradient is a convolution too: of the output's, with the kernel upside down.
        any_row<K, 1>(block, image, plane, taps, step, row - (K - 1 - s.top) - grads.first, K - 1 - s.left, s.width,
                      found);
      } else {
        spread_row<K>(image, grads.first, s, taps, step, row, found);
      }
      const long at = ((n - unit.image) * seen.count + row - seen.first) * size;
      if (norm != nullptr) {
        norm->take(line, slopes + at, x + (n * s.height + row) * size, size, out);
      } else if (sizeof(T) != sizeof(float)) {
        each_vector(size, [&](long i, auto lanes) { store(out + i, load(line + i, lanes), lanes); });
      }
    }
  }
}

// norm_sums: where the input is normalised on the way, (2, channels), what `norm_gradients` asks for; else null.
template <int K, int S, class T>
int depthwise_backward_of(const DepthwiseShape& s, int threads, const T* grad, const T* x, const Making<T>* making,
                          const float* weight, T* grad_x, float* grad_weight, double* norm_sums) {
  const Cut cut(s, sizeof(T));
  const bool normed = norm_sums != nullptr;
  const long step = round_up(s.channels, kLanes), taps_size = K * K * step, period = normed ? making->period : 0;
  const long run_size = taps_size + 2 * period;
  Scratch scratch(taps_size * sizeof(float) + cut.runs * run_size * sizeof(double));
  if (!scratch.ok()) return kNoMemory;
  float* taps = scratch.at<float>(0);
  double* sums = scratch.at<double>(taps_size * sizeof(float));
  transpose_weight(weight, s.channels, K * K, S == 1, taps);
  const int block = block_width(s.width);
  const long line_size = s.width * s.channels, grad_line = s.out_width * s.channels;
  long input_rows, output_rows;
  cut.most_rows(s, input_rows, output_rows);
  const Making<T> widen{widen_values<T>, nullptr, 0}, *widened = sizeof(T) == sizeof(float) ? nullptr : &widen;
  const long made = (normed ? 2 : 1) * input_rows * line_size;
  const long widened_size = widened == nullptr ? 0 : output_rows * grad_line;
  Failure failure;
  for_each(cut.runs, threads, [&](long run) {
    Scratch own((made + widened_size + round_up(line_size, kLanes) + 2 * period) * sizeof(float));
    if (!own.ok()) return failure.set();
    float *single = own.at<float>(0), *line = single + 2 * period;
    double *weights = sums + run * run_size, *totals = weights + taps_size;
    memset(weights, 0, run_size * sizeof(double));
    memset(single, 0, 2 * period * sizeof(float));
    float* room = line + round_up(line_size, kLanes);
    Rows<T> rows(s.height, line_size, x, making, input_rows, normed, room);
    Rows<T> grad_rows(s.out_height, grad_line, grad, widened, output_rows, false, room + made);
    NormSums norm{normed ? making->affine : nullptr, period, single, totals, 0};
    for (long i = cut.units * run / cut.runs; i < cut.units * (run + 1) / cut.runs; i++) {
      const Unit unit = cut.unit(s, i);
      long first, last, first_grad, last_grad;
      Cut::needs(s, unit, first, last);
      Seen seen{nullptr, 0, 0};
      Cut::reads(s, unit, first_grad, last_grad);
      const Seen grads = grad_rows.get(unit.image, unit.images, first_grad, last_grad);
      if (normed || grad_weight != nullptr) seen = rows.get(unit.image, unit.images, first, last);
      if (grad_weight != nullptr) weigh_unit<K, S>(seen, grads, s, unit, weights);
      if (grad_x != nullptr) {
        inputs_of<K, S>(grads, x, s, unit, taps, step, block, seen, rows.slopes(), normed ? &norm : nullptr, line, grad_x);
      }
    }
    norm.settle();
  });
  if (failure.code()) return failure.code();
  for (long i = 0; i < 2 * (normed ? s.channels : 0); i++) {
    const long c = i % s.channels, offset = taps_size + i / s.channels * period;
    norm_sums[i] = 0;
    for (long run = 0; run < cut.runs; run++) {
      for (long j = c; j < period; j += s.channels) norm_sums[i] += sums[run * run_size + offset + j];
    }
  }
  if (grad_weight == nullptr) return kDone;
  for (long c = 0; c < s.channels; c++) {
    for (long k = 0; k < K * K; k++) {
      double sum = 0;
      for (long run = 0; run < cut.runs; run++) sum += sums[run * run_size + k * step + c];
      grad_weight[c * K * K + k] = static_cast<float>(sum);
    }
  }
  return kDone;
}

template <class T>
int norm_depthwise_of(const DepthwiseShape& s, int64_t activation, double epsilon, int threads, const T* x,
                      const float* weight, const float* bias, const float* taps, T* y, float* statistics) {
  const long rows = s.images * s.height * s.width;
  const Periods p(rows, s.channels);
  Scratch scratch(Affine::size(p) * sizeof(float));
  if (!scratch.ok()) return kNoMemory;
  if (!enough(s.channels)) return kDeclined;
  if (int failed = statistics_of(x, rows, p, epsilon, threads, statistics)) return failed;
  const Affine affine(p, weight, bias, statistics, scratch.at<float>(0));
  return with_known_activation(activation, [&](auto act) {
    const Making<T> making{normalise_values<decltype(act)::value, T>, &affine, p.length};
    return with_kernel(s, [&](auto k, auto stride) {
      return depthwise_of<decltype(k)::value, decltype(stride)::value>(s, threads, x, &making, taps, y);
    });
  });
}

template <class T>
int norm_depthwise_backward_of(const DepthwiseShape& s, int64_t activation, int threads, const T* grad, const T* x,
                               const float* weight, const float* bias, const float* statistics, const float* taps,
                               T* grad_x, float* grad_weight, float* grad_bias, float* grad_taps) {
  const long rows = s.images * s.height * s.width;
  const Periods p(rows, s.channels);
  Scratch scratch(2 * s.channels * sizeof(double) + Affine::size(p) * sizeof(float));
  if (!scratch.ok()) return kNoMemory;
  double* sums = scratch.at<double>(0);
  const Affine affine(p, weight, bias, statistics, scratch.at<float>(2 * s.channels * sizeof(double)));
  const int failed = with_known_activation(activation, [&](auto act) {
    const Making<T> making{normalise_values<decltype(act)::value, T>, &affine, p.length};
    return with_kernel(s, [&](auto k, auto stride) {
      return depthwise_backward_of<decltype(k)::value, decltype(stride)::value>(s, threads, grad, x, &making, taps,
                                                                                grad_x, grad_taps, sums);
    });
  });
  if (failed) return failed;
  return norm_gradients(p, rows, threads, affine, weight, statistics, sums, x, grad_x, grad_weight, grad_bias,
                        [&](long at, Vec, long, auto lanes) { return load(grad_x + at, lanes); });
}

template <class T>
int plain_depthwise(const DepthwiseShape& s, int threads, const T* x, const float* weight, T* y) {
  const Making<T> widen{widen_values<T>, nullptr, 0}, *making = sizeof(T) == sizeof(float) ? nullptr : &widen;
  return with_kernel(s, [&](auto k, auto stride) {
    return depthwise_of<decltype(k)::value, decltype(stride)::value>(s, threads, x, making, weight, y);
  });
}

template <class T>
int plain_depthwise_backward(const DepthwiseShape& s, int threads, const T* grad, const T* x, const float* weight, T* grad_x,
                             float* grad_weight) {
  const Making<T> widen{widen_values<T>, nullptr, 0}, *making = sizeof(T) == sizeof(float) ? nullptr : &widen;
  return with_kernel(s, [&](auto k, auto stride) {
    return depthwise_backward_of<decltype(k)::value, decltype(stride)::value>(s, threads, grad, x, making, weight,
                                                                              grad_x, grad_weight, nullptr);
  });
}

int depthwise(const DepthwiseShape* s, int bf16, int threads, const void* x, const float* weight, void* y) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return plain_depthwise(*s, threads, static_cast<const T*>(x), weight, static_cast<T*>(y));
  });
}

int depthwise_backward(const DepthwiseShape* s, int bf16, int threads, const void* grad, const void* x,
                       const float* weight, void* grad_x, float* grad_weight) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return plain_depthwise_backward(*s, threads, static_cast<const T*>(grad), static_cast<const T*>(x), weight,
                                    static_cast<T*>(grad_x), grad_weight);
  });
}

int norm_depthwise(const DepthwiseShape* s, int64_t activation, double epsilon, int bf16, int threads, const void* x,
                   const float* weight, const float* bias, const float* taps, void* y, float* statistics) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return norm_depthwise_of(*s, activation, epsilon, threads, static_cast<const T*>(x), weight, bias, taps,
                             static_cast<T*>(y), statistics);
  });
}

int norm_depthwise_backward(const DepthwiseShape* s, int64_t activation, int bf16, int threads, const void* grad,
                            const void* x, const float* weight, const float* bias, const float* statistics,
                            const float* taps, void* grad_x, float* grad_weight, float* grad_bias, float* grad_taps) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return norm_depthwise_backward_of(*s, activation, threads, static_cast<const T*>(grad), static_cast<const T*>(x),
                                      weight, bias, statistics, taps, static_cast<T*>(grad_x), grad_weight, grad_bias,
                                      grad_taps);
  });
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
