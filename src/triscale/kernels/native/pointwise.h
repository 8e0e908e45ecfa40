// Convolution with a 1×1 kernel and its gradients. Included by kernels.cpp.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// grad_weight, (outputs, inputs). More vectors at once are fewer loads for each product, so the wider tensor is `wide`.
template <class T>
int weight_gradient(long rows, long inputs, long outputs, int threads, const T* grad, const T* x, float* grad_weight) {
  return outputs > inputs ? outer_products(rows, inputs, outputs, threads, x, grad, true, grad_weight)
                          : outer_products(rows, outputs, inputs, threads, grad, x, false, grad_weight);
}

template <class T>
int pointwise_backward_of(long rows, long inputs, long outputs, int threads, const T* grad, const T* x,
                          const float* weight, T* grad_x, float* grad_weight) {
  if (grad_x != nullptr) {
    if (int failed = product(rows, outputs, inputs, threads, grad, weight, false, grad_x)) return failed;
  }
  return grad_weight == nullptr ? kDone : weight_gradient(rows, inputs, outputs, threads, grad, x, grad_weight);
}

int pointwise(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* x, const float* weight,
              void* y) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return product(rows, inputs, outputs, threads, static_cast<const T*>(x), weight, true, static_cast<T*>(y));
  });
}

int pointwise_backward(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* grad,
                       const void* x, const float* weight, void* grad_x, float* grad_weight) {
  return with_values(bf16, [&](auto value) {
    using T = decltype(value);
    return pointwise_backward_of(rows, inputs, outputs, threads, static_cast<const T*>(grad), static_cast<const T*>(x),
                                 weight, static_cast<T*>(grad_x), grad_weight);
  });
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
