// Rows of a depthwise convolution's tensors, made in single precision when they are needed. Included by kernels.cpp.
//
// The input may be a tensor before normalisation and activation. Both are then applied to the rows that are needed, in
// the cache: the tensor between is never stored, and the backward pass makes it anew. Gradients in bf16 are widened in the
// same way: what is read in the order in which it lies comes from memory several times faster than one vector of channels
// after another.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// How values of a tensor become what is computed with: n of them, which begin with the first channel.
template <class T>
struct Making {
  void (*make)(const Making&, const T* x, long n, float* out, float* slopes);
  const Affine* affine;
  long period;
};

template <class T>
void widen_values(const Making<T>&, const T* x, long n, float* out, float*) {
  each_vector(n, [&](long at, auto lanes) { store(out + at, load(x + at, lanes), lanes); });
}

// Normalised and activated, and where asked the activation's slopes too.
template <Activation ACT, class T>
void normalise_values(const Making<T>& how, const T* x, long n, float* out, float* slopes) {
  const Affine& affine = *how.affine;
  if (slopes == nullptr) {
    walk(n, how.period, [&](long at, long c, auto lanes) {
      const Vec z = affine.away(load(x + at, lanes), c) * load(affine.factor + c, Full{}) + load(affine.bias + c, Full{});
      store(out + at, activate<ACT, T>(z), lanes);
    });
    return;
  }
  walk(n, how.period, [&](long at, long c, auto lanes) {
    const Vec z = affine.away(load(x + at, lanes), c) * load(affine.factor + c, Full{}) + load(affine.bias + c, Full{});
    Vec active, slope_;
    activate_and_slope<ACT, T>(z, active, slope_);
    store(out + at, active, lanes);
    store(slopes + at, slope_, lanes);
  });
}

// Makes rows of a tensor, (images, height, width, channels), as they are asked for, in order; those that the call before
// asked for too are kept.
template <class T>
class Rows {
 public:
  // room: for `most_rows` rows, twice where slopes are wanted. `making` is null where the tensor itself is taken.
  Rows(long height, long line, const T* x, const Making<T>* making, long most_rows, bool slopes, float* room)
      : height_(height), line_(line), x_(x), making_(making), out_(room),
        slopes_(slopes ? room + most_rows * line : nullptr) {}

  // Rows [first, last) of so many images; all rows, where there are several.
  Seen get(long image, long images, long first, long last) {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (making_ == nullptr) return {x_ + image * height_ * line_, 0, height_};
    }
    long done = first;
    if (image == image_ && images == 1 && first >= first_ && first < last_) {
      done = min_of(last, last_);
      memmove(out_, out_ + (first - first_) * line_, (done - first) * line_ * sizeof(float));
      if (slopes_) memmove(slopes_, slopes_ + (first - first_) * line_, (done - first) * line_ * sizeof(float));
    }
    const long from = (done - first) * line_, n = images == 1 ? (last - done) * line_ : images * height_ * line_;
    making_->make(*making_, x_ + (image * height_ + done) * line_, n, out_ + from, slopes_ ? slopes_ + from : nullptr);
    image_ = image, first_ = first, last_ = last;
    return {out_, first, last - first};
  }

  const float* slopes() const { return slopes_; }

 private:
  long height_, line_;
  const T* x_;
  const Making<T>* making_;
  float *out_, *slopes_;
  long image_ = -1, first_ = 0, last_ = 0;
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
