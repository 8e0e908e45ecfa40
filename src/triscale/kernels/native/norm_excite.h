// Batch normalisation in training, activation and squeeze-excite in one: the tensor between them is never stored. Included by
// kernels.cpp.
//
// Images are taken one after another, and each stays in the cache from the activation to the scaling, and in the backward
// pass from the gate's gradient to the activation's.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// An image in fp32 may be too large for the cache: what comes from memory is read in the order in which it lies.
template <class T>
constexpr int kGroupOf = sizeof(T) == sizeof(float) ? 1 : kVectorsAtOnce;

// Sums for a period → sums for every channel.
template <class Out>
inline void fold(const double* sums, const Periods& p, Out* out) {
  for (long c = 0; c < p.channels; c++) {
    double sum = 0;
    for (long i = c; i < p.length; i += p.channels) sum += sums[i];
    out[c] = static_cast<Out>(sum);
  }
}

// The two layers between averages and gates, both (squeezed, channels), rows filled up with zeros to whole vectors.
struct Layers {
  long squeezed, step;
  float *reduce, *expand;

  static long size(long channels, long squeezed) { return 2 * squeezed * round_up(channels, kLanes); }

  Layers(const float* reduce_, const float* expand_, long channels, long squeezed_, float* room)
      : squeezed(squeezed_), step(round_up(channels, kLanes)), reduce(room), expand(room + squeezed * step) {
    memset(room, 0, size(channels, squeezed) * sizeof(float));
    for (long q = 0; q < squeezed; q++) {
      for (long c = 0; c < channels; c++) {
        reduce[q * step + c] = reduce_[q * channels + c];
        expand[q * step + c] = expand_[c * squeezed + q];
      }
    }
  }

  // The sum of a row's values times v's.
  float inner(const float* row, const float* v) const {
    Vec sum = all(0);
    for (long c = 0; c < step; c += kLanes) sum += load(row + c, Full{}) * load(v + c, Full{});
    float values[kLanes], total = 0;
    store(values, sum, Full{});
    for (int i = 0; i < kLanes; i++) total += values[i];
    return total;
  }

  // Adds every row times its value of v.
  void combine(const float* rows, const float* v, float* out) const {
    for (long c = 0; c < step; c += kLanes) {
      Vec sum = load(out + c, Full{});
      for (long q = 0; q < squeezed; q++) sum += load(rows + q * step + c, Full{}) * v[q];
      store(out + c, sum, Full{});
    }
  }
};

inline float first_of(Vec v) { return v[0]; }

// A value for every channel → for a period.
inline void repeat_channels(const float* values, const Periods& p, float* out) {
  for (long i = 0; i < p.length; i += p.channels) memcpy(out + i, values, p.channels * sizeof(float));
}

// What one image needs for itself.
struct OwnRoom {
  static long size(const Periods& p, const ExciteShape& s) {
    return 2 * p.length * sizeof(double) +
           (4 * p.length + 2 * round_up(p.channels, kLanes) + round_up(s.squeezed, kLanes)) * sizeof(float);
  }
  double* totals;
  float *first, *second, *of_channels, *others, *squeezed;

  OwnRoom(const Periods& p, const ExciteShape& s, void* room) {
    memset(room, 0, size(p, s));
    totals = static_cast<double*>(room);
    first = reinterpret_cast<float*>(totals + 2 * p.length), second = first + p.length;
    of_channels = second + 3 * p.length, others = of_channels + round_up(p.channels, kLanes);
    squeezed = others + round_up(p.channels, kLanes);
  }
};

// What both passes compute with: the sums that a pass begins with, each image's own, and what all images share.
class ExciteRoom {
 public:
  // sums: their bytes, of whole cache lines.
  ExciteRoom(const ExciteShape& s, const Periods& p, long sums)
      : shape_(s), periods_(p), own_begin_(sums), own_size_(round_up(OwnRoom::size(p, s), 64)),
        scratch_(shared_begin() + (Affine::size(p) + Layers::size(s.channels, s.squeezed)) * sizeof(float)) {}
  bool ok() const { return scratch_.ok(); }
  double* sums(long offset) const { return scratch_.at<double>(offset); }
  OwnRoom own(long image) const { return {periods_, shape_, scratch_.at<char>(own_begin_ + image * own_size_)}; }
  Affine affine(const float* weight, const float* bias, const float* statistics) const {
    return {periods_, weight, bias, statistics, shared()};
  }
  Layers layers(const float* reduce, const float* expand) const {
    return {reduce, expand, shape_.channels, shape_.squeezed, shared() + Affine::size(periods_)};
  }

 private:
  long shared_begin() const { return own_begin_ + shape_.images * own_size_; }
  float* shared() const { return scratch_.at<float>(shared_begin()); }

  const ExciteShape& shape_;
  const Periods& periods_;
  const long own_begin_, own_size_;
  const Scratch scratch_;
};

// y = a·gate, for a = activation((x − mean)·rstd·weight + bias) and gate = σ(expand·activation(reduce·averages of a)).
// statistics: as norm's; pooled, gate: (images, channels); hidden: (images, squeezed), before the activation.
template <Activation ACT, class T>
int norm_excite_of(const ExciteShape& s, double epsilon, int threads, const T* x, const float* weight, const float* bias,
                   const float* reduce, const float* reduce_bias, const float* expand, const float* expand_bias, T* y,
                   float* statistics, float* pooled, float* hidden, float* gate) {
  const long rows = s.images * s.pixels, values = s.pixels * s.channels;
  const Periods p(rows, s.channels);
  if (int failed = statistics_of(x, rows, p, epsilon, threads, statistics)) return failed;
  const ExciteRoom room(s, p, 0);
  if (!room.ok()) return kNoMemory;
  const Affine affine = room.affine(weight, bias, statistics);
  const Layers layers = room.layers(reduce, expand);
  for_each(s.images, threads, [&](long n) {
    const T* image = x + n * values;
    T* out = y + n * values;
    const OwnRoom own = room.own(n);
    in_groups<kGroupOf<T>>(0, values, p.length, [&](auto rows, long at, long c, auto lanes) {
      const Vec mean = load(affine.mean + c, Full{}), factor = load(affine.factor + c, Full{});
      const Vec shift = load(affine.bias + c, Full{});
      Vec sum = load(own.first + c, Full{});
      Pairs<decltype(rows)::value> active;
      Vec found[decltype(rows)::value];
      TRISCALE_UNROLL for (int i = 0; i < decltype(rows)::value; i++) {
        const long here = at + i * p.length;
        found[i] = activate<ACT, T>((load(image + here, lanes) - mean) * factor + shift);
        active.add(i, only(found[i], lanes), sum);
      }
      store_rows(found, out + at, p.length, lanes);
      store(own.first + c, sum, Full{});
    }, [&] { drain(own.first, p.length, own.totals); });
    fold(own.totals, p, own.of_channels);
    for (long c = 0; c < s.channels; c++) {
      pooled[n * s.channels + c] = own.of_channels[c] /= static_cast<float>(s.pixels);
    }
    for (long q = 0; q < s.squeezed; q++) {
      const float z = layers.inner(layers.reduce + q * layers.step, own.of_channels) + reduce_bias[q];
      hidden[n * s.squeezed + q] = z;
      own.squeezed[q] = first_of(activate<ACT, float>(all(z)));
    }
    memcpy(own.others, expand_bias, s.channels * sizeof(float));
    layers.combine(layers.expand, own.squeezed, own.others);
    for (long c = 0; c < layers.step; c += kLanes) {
      store(own.others + c, logistic<float>(load(own.others + c, Full{})), Full{});
    }
    memcpy(gate + n * s.channels, own.others, s.channels * sizeof(float));
    repeat_channels(own.others, p, own.first);
    walk(values, p.length, [&](long at, long c, auto lanes) {
      store(out + at, load(out + at, lanes) * load(own.first + c, Full{}), lanes);
    });
  });
  return kDone;
}

// grad_gate and grad_hidden: the gradients before the logistic function, (images, channels), and before the activation of
// the squeezed values, (images, squeezed). Those of the layers are products of these.
template <Activation ACT, class T>
int norm_excite_backward_of(const ExciteShape& s, int threads, const T* grad, const T* x, const float* weight,
                            const float* bias, const float* statistics, const float* hidden, const float* gate,
                            const float* reduce, const float* expand, T* grad_x, float* grad_weight, float* grad_bias,
                            float* grad_gate, float* grad_hidden) {
  const long rows = s.images * s.pixels, values = s.pixels * s.channels;
  const Periods p(rows, s.channels);
  const long sums_size = round_up(2 * s.channels * sizeof(double), 64);
  const ExciteRoom room(s, p, (s.images + 1) * sums_size);
  if (!room.ok()) return kNoMemory;
  const Affine affine = room.affine(weight, bias, statistics);
  const Layers layers = room.layers(reduce, expand);
  for_each(s.images, threads, [&](long task) {
    const long n = s.images - 1 - task;
    const T *image = x + n * values, *from = grad + n * values;
    T* out = grad_x + n * values;
    const OwnRoom own = room.own(n);
    // What the gate gets; and the activation's slope, which waits where the gradient will be.
    in_groups<kGroupOf<T>>(0, values, p.length, [&](auto rows, long at, long c, auto lanes) {
      const Vec mean = load(affine.mean + c, Full{}), factor = load(affine.factor + c, Full{});
      const Vec shift = load(affine.bias + c, Full{});
      Vec sum = load(own.first + c, Full{});
      Pairs<decltype(rows)::value> products;
      Vec slopes[decltype(rows)::value];
      TRISCALE_UNROLL for (int i = 0; i < decltype(rows)::value; i++) {
        const long here = at + i * p.length;
        Vec a;
        activate_and_slope<ACT, T>((load(image + here, lanes) - mean) * factor + shift, a, slopes[i]);
        // Where lanes are missing the gradient loads as 0.
        products.add(i, load(from + here, lanes) * a, sum);
      }
      store_rows(slopes, out + at, p.length, lanes);
      store(own.first + c, sum, Full{});
    }, [&] { drain(own.first, p.length, own.totals); });
    fold(own.totals, p, own.of_channels);
    const float* open = gate + n * s.channels;
    for (long c = 0; c < s.channels; c++) {
      grad_gate[n * s.channels + c] = own.of_channels[c] *= open[c] * (1 - open[c]);
    }
    for (long q = 0; q < s.squeezed; q++) {
      const float found = layers.inner(layers.expand + q * layers.step, own.of_channels);
      own.squeezed[q] = found * first_of(slope<ACT, float>(all(hidden[n * s.squeezed + q])));
    }
    memcpy(grad_hidden + n * s.squeezed, own.squeezed, s.squeezed * sizeof(float));
    layers.combine(layers.reduce, own.squeezed, own.others);
    for (long c = 0; c < s.channels; c++) own.others[c] /= static_cast<float>(s.pixels);
    // What flows back through the averages joins what flows through the scaling.
    float *factors = own.first, *terms = own.second, *sums = own.second + p.length;
    repeat_channels(open, p, factors);
    repeat_channels(own.others, p, terms);
    memset(own.totals, 0, 2 * p.length * sizeof(double));
    in_groups<kGroupOf<T>>(0, values, p.length, [&](auto rows, long at, long c, auto lanes) {
      const Vec mean = load(affine.mean + c, Full{});
      const Vec factor = load(factors + c, Full{}), term = load(terms + c, Full{});
      Vec sum = load(sums + c, Full{}), product = load(sums + p.length + c, Full{});
      Pairs<decltype(rows)::value> gradients, products;
      Vec found[decltype(rows)::value];
      TRISCALE_UNROLL for (int i = 0; i < decltype(rows)::value; i++) {
        const long here = at + i * p.length;
        found[i] = (load(from + here, lanes) * factor + term) * load(out + here, lanes);
        const Vec g = rounded<T>(found[i]);
        gradients.add(i, g, sum);
        products.add(i, g * (load(image + here, lanes) - mean), product);
      }
      store_rows(found, out + at, p.length, lanes);
      store(sums + c, sum, Full{});
      store(sums + p.length + c, product, Full{});
    }, [&] { drain(sums, 2 * p.length, own.totals); });
    double* found = room.sums((n + 1) * sums_size);
    fold(own.totals, p, found);
    fold(own.totals + p.length, p, found + s.channels);
  });
  double* sums = room.sums(0);
  for (long c = 0; c < 2 * s.channels; c++) {
    sums[c] = 0;
    for (long n = 0; n < s.images; n++) sums[c] += room.sums((n + 1) * sums_size)[c];
  }
  return norm_gradients(p, rows, threads, affine, weight, statistics, sums, x, grad_x, grad_weight, grad_bias,
                        [&](long at, Vec, long, auto lanes) { return load(grad_x + at, lanes); });
}

int norm_excite(const ExciteShape* s, int64_t activation, double epsilon, int bf16, int threads, const void* x,
                const float* weight, const float* bias, const float* reduce, const float* reduce_bias,
                const float* expand, const float* expand_bias, void* y, float* statistics, float* pooled, float* hidden,
                float* gate) {
  return with_known_activation(activation, [&](auto act) {
    return with_values(bf16, [&](auto value) {
      using T = decltype(value);
      return norm_excite_of<decltype(act)::value>(*s, epsilon, threads, static_cast<const T*>(x), weight, bias, reduce,
                                                  reduce_bias, expand, expand_bias, static_cast<T*>(y), statistics,
                                                  pooled, hidden, gate);
    });
  });
}

int norm_excite_backward(const ExciteShape* s, int64_t activation, int bf16, int threads, const void* grad,
                         const void* x, const float* weight, const float* bias, const float* statistics,
                         const float* hidden, const float* gate, const float* reduce, const float* expand, void* grad_x,
                         float* grad_weight, float* grad_bias, float* grad_gate, float* grad_hidden) {
  return with_known_activation(activation, [&](auto act) {
    return with_values(bf16, [&](auto value) {
      using T = decltype(value);
      return norm_excite_backward_of<decltype(act)::value>(*s, threads, static_cast<const T*>(grad),
                                                           static_cast<const T*>(x), weight, bias, statistics, hidden,
                                                           gate, reduce, expand, static_cast<T*>(grad_x), grad_weight,
                                                           grad_bias, grad_gate, grad_hidden);
    });
  });
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
