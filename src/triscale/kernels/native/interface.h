// What Python calls, and what every instruction set provides. Tensors are NHWC without gaps, values fp32 or bf16.

#pragma once

#include <stdint.h>

namespace triscale {

// Depthwise convolution: (images, height, width, channels) → (images, out_height, out_width, channels). Output row i
// sees input rows i·stride − top to i·stride − top + kernel − 1; those outside count as 0. Columns likewise.
struct DepthwiseShape {
  int64_t images, height, width, channels, out_height, out_width, kernel, stride, top, left;
};

// Squeeze-excite: averages over the pixels of each image, to so many values and back to one for each channel.
struct ExciteShape {
  int64_t images, pixels, channels, squeezed;
};

enum Activation : int64_t { kNone, kRelu, kRelu6, kHardswish, kSilu };

// What a kernel returns: that its work is done; that there was no memory for its own sums; that there is no code for such a
// kernel size or stride, for so few channels or for the activation. Where it is not done, what it writes means nothing.
enum Result : int { kDone = 0, kNoMemory = -1, kDeclined = -2 };

struct TrainingKernels {
  int (*depthwise)(const DepthwiseShape*, int bf16, int threads, const void* x, const float* weight, void* y);
  int (*depthwise_backward)(const DepthwiseShape*, int bf16, int threads, const void* grad, const void* x,
                            const float* weight, void* grad_x, float* grad_weight);
  int (*norm)(int64_t rows, int64_t channels, int64_t activation, double epsilon, int bf16, int threads, const void* x,
              const float* weight, const float* bias, void* y, float* statistics);
  int (*norm_backward)(int64_t rows, int64_t channels, int64_t activation, int bf16, int threads, const void* grad,
                       const void* x, const float* weight, const float* bias, const float* statistics, void* grad_x,
                       float* grad_weight, float* grad_bias);
  int (*pool)(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x, float* means);
  int (*scale)(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x,
               const float* factors, const float* terms, void* y);
  int (*dot)(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x, const void* grad,
             float* sums);
  int (*pointwise)(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* x,
                   const float* weight, void* y);
  int (*pointwise_backward)(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* grad,
                            const void* x, const float* weight, void* grad_x, float* grad_weight);
  int (*norm_depthwise)(const DepthwiseShape*, int64_t activation, double epsilon, int bf16, int threads, const void* x,
                        const float* weight, const float* bias, const float* taps, void* y, float* statistics);
  int (*norm_depthwise_backward)(const DepthwiseShape*, int64_t activation, int bf16, int threads, const void* grad,
                                 const void* x, const float* weight, const float* bias, const float* statistics,
                                 const float* taps, void* grad_x, float* grad_weight, float* grad_bias, float* grad_taps);
  int (*norm_excite)(const ExciteShape*, int64_t activation, double epsilon, int bf16, int threads, const void* x,
                     const float* weight, const float* bias, const float* reduce, const float* reduce_bias,
                     const float* expand, const float* expand_bias, void* y, float* statistics, float* pooled,
                     float* hidden, float* gate);
  int (*norm_excite_backward)(const ExciteShape*, int64_t activation, int bf16, int threads, const void* grad, const void* x,
                              const float* weight, const float* bias, const float* statistics, const float* hidden,
                              const float* gate, const float* reduce, const float* expand, void* grad_x,
                              float* grad_weight, float* grad_bias, float* grad_gate, float* grad_hidden);
};

// Calls task(context, i) once for every i in [0, tasks), by at most so many threads. Which thread takes which task is
// left open, so a task must not depend on it: what several tasks sum is kept apart and added up afterwards.
void parallel(int64_t tasks, int threads, void (*task)(void*, int64_t), void* context);

}  // namespace triscale
