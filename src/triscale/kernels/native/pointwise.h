// Convolution with a 1×1 kernel and its gradients: products of a tall matrix, (rows, inputs), with a small one. Included by
// kernels.cpp.
//
// oneDNN blocks for hundreds of channels; these networks have tens. A few rows times a few vectors of outputs stay in
// registers while all inputs pass by. bf16 is widened on the way in and multiplied in single precision, which on
// processors without matrix units is twice as fast as their bf16 products, and exact.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

constexpr int kTall = kRegisters == 32 ? 8 : 4;  // rows at once
constexpr int kWide = kRegisters == 32 ? 3 : 2;  // vectors of outputs at once


// (rows, columns) or its transpose → (rows, columns filled up with zeros to whole vectors).
inline void pack(const float* from, long rows, long columns, bool transposed, float* to) {
  const long step = round_up(columns, kLanes);
  memset(to, 0, rows * step * sizeof(float));
  for (long i = 0; i < rows; i++) {
    for (long j = 0; j < columns; j++) to[i * step + j] = transposed ? from[j * rows + i] : from[i * columns + j];
  }
}

// VECTORS vectors of ROWS rows of x·weight. x: (rows, inputs) in single precision; weight: (inputs, step).
template <int ROWS, int VECTORS, class T>
inline void tile(const float* x, long inputs, const float* weight, long step, T* y, long outputs, long left) {
  Vec sums[ROWS][VECTORS];
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = all(0);
  }
  for (long i = 0; i < inputs; i++) {
    Vec taps[VECTORS];
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) taps[v] = load(weight + i * step + v * kLanes, Full{});
    TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
      const Vec value = all(x[r * inputs + i]);
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] += value * taps[v];
    }
  }
  TRISCALE_UNROLL for (int r = 0; r < ROWS; r++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
      T* at = y + r * outputs + v * kLanes;
      if ((v + 1) * kLanes <= left) {
        store(at, sums[r][v], Full{});
      } else {
        store(at, sums[r][v], First(left - v * kLanes));
      }
    }
  }
}

template <int ROWS, class T>
inline void tiles(const float* x, long inputs, const float* weight, long step, T* y, long outputs) {
  for (long j = 0; j < outputs; j += kWide * kLanes) {
    const long left = outputs - j;
    switch (least(kWide, (left + kLanes - 1) / kLanes)) {
      case 1: tile<ROWS, 1>(x, inputs, weight + j, step, y + j, outputs, left); break;
      case 2: tile<ROWS, 2>(x, inputs, weight + j, step, y + j, outputs, left); break;
      default: tile<ROWS, kWide>(x, inputs, weight + j, step, y + j, outputs, left); break;
    }
  }
}

// Rows in single precision: where they lie, or widened into a buffer.
inline const float* single(const float* x, long, float*) { return x; }
inline const float* single(const Bf16* x, long n, float* buffer) {
  each_vector(n, [&](long at, auto lanes) { store(buffer + at, load(x + at, lanes), lanes); });
  return buffer;
}

// y = x·weight, for weight (inputs, outputs) in the order that `transposed` says.
template <class T>
int product(long rows, long inputs, long outputs, int threads, const T* x, const float* weight, bool transposed, T* y) {
  constexpr long kAtOnce = 64;
  const long step = round_up(outputs, kLanes), chunks = (rows + kAtOnce - 1) / kAtOnce;
  const long buffer = round_up(kTall * inputs, 16) * sizeof(float), packed = inputs * step * sizeof(float);
  const long tasks = least(chunks, 64);
  Scratch scratch(packed + tasks * buffer);
  if (!scratch.ok()) return -1;
  float* taps = scratch.at<float>(0);
  pack(weight, inputs, outputs, transposed, taps);
  for_each(tasks, threads, [&](long task) {
    float* own = scratch.at<float>(packed + task * buffer);
    const long end = least(rows, chunks * (task + 1) / tasks * kAtOnce);
    long row = chunks * task / tasks * kAtOnce;
    for (; row + kTall <= end; row += kTall) {
      tiles<kTall>(single(x + row * inputs, kTall * inputs, own), inputs, taps, step, y + row * outputs, outputs);
    }
    for (; row < end; row++) {
      tiles<1>(single(x + row * inputs, inputs, own), inputs, taps, step, y + row * outputs, outputs);
    }
  });
  return 0;
}

// Adds, for TALL outputs from `out` and one to kWide vectors of inputs, the products over `rows` rows to sums.
template <int TALL, int VECTORS>
inline void outer(const float* grad, long outputs, const float* x, long step, long rows, float* sums) {
  Vec found[TALL][VECTORS];
  TRISCALE_UNROLL for (int o = 0; o < TALL; o++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) found[o][v] = load(sums + o * step + v * kLanes, Full{});
  }
  for (long r = 0; r < rows; r++) {
    Vec values[VECTORS];
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) values[v] = load(x + r * step + v * kLanes, Full{});
    TRISCALE_UNROLL for (int o = 0; o < TALL; o++) {
      const Vec g = all(grad[r * outputs + o]);
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) found[o][v] += g * values[v];
    }
  }
  TRISCALE_UNROLL for (int o = 0; o < TALL; o++) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) store(sums + o * step + v * kLanes, found[o][v], Full{});
  }
}

template <int TALL>
inline void outers(const float* grad, long outputs, const float* x, long step, long rows, float* sums) {
  for (long j = 0; j < step; j += kWide * kLanes) {
    switch (least(kWide, (step - j) / kLanes)) {
      case 1: outer<TALL, 1>(grad, outputs, x + j, step, rows, sums + j); break;
      case 2: outer<TALL, 2>(grad, outputs, x + j, step, rows, sums + j); break;
      default: outer<TALL, kWide>(grad, outputs, x + j, step, rows, sums + j); break;
    }
  }
}

// Sums over all rows of every value of `tall` times every value of `wide`, (tall, wide) or, where asked, transposed: in
// single precision within a chunk and in double over the chunks.
template <class T>
int outer_products(long rows, long tall_size, long wide_size, int threads, const T* tall, const T* wide, bool transposed,
                   float* out) {
  constexpr long kAtOnce = 128;
  const long step = round_up(wide_size, kLanes), size = tall_size * step, chunks = (rows + kAtOnce - 1) / kAtOnce;
  // Each run has sums of its own; they should be little beside the rows.
  const long runs = most(1, least(least(chunks, 64), rows * (tall_size + wide_size) / (8 * size)));
  const long buffers = kAtOnce * (step + round_up(tall_size, kLanes)) * sizeof(float);
  const long own_size = round_up(size * (sizeof(double) + sizeof(float)) + buffers, 64);
  Scratch scratch(runs * own_size);
  if (!scratch.ok()) return -1;
  for_each(runs, threads, [&](long run) {
    double* sums = scratch.at<double>(run * own_size);
    float* partial = scratch.at<float>(run * own_size + size * sizeof(double));
    float *values = partial + size, *buffer = values + kAtOnce * step;
    memset(sums, 0, size * sizeof(double));
    for (long chunk = chunks * run / runs; chunk < chunks * (run + 1) / runs; chunk++) {
      const long row = chunk * kAtOnce, count = least(kAtOnce, rows - row);
      memset(partial, 0, size * sizeof(float));
      for (long r = 0; r < count; r++) {
        each_vector(wide_size, [&](long c, auto lanes) {
          store(values + r * step + c, load(wide + (row + r) * wide_size + c, lanes), Full{});
        });
      }
      const float* factors = single(tall + row * tall_size, count * tall_size, buffer);
      long t = 0;
      for (; t + kTall <= tall_size; t += kTall) {
        outers<kTall>(factors + t, tall_size, values, step, count, partial + t * step);
      }
      for (; t < tall_size; t++) outers<1>(factors + t, tall_size, values, step, count, partial + t * step);
      add_to(sums, partial, size);
    }
  });
  for (long t = 0; t < tall_size; t++) {
    for (long w = 0; w < wide_size; w++) {
      double sum = 0;
      for (long run = 0; run < runs; run++) sum += scratch.at<double>(run * own_size)[t * step + w];
      out[transposed ? w * tall_size + t : t * wide_size + w] = static_cast<float>(sum);
    }
  }
  return 0;
}

// grad_weight, (outputs, inputs). More vectors at once are fewer loads for each product, so the wider tensor is `wide`.
template <class T>
int weight_gradient(long rows, long inputs, long outputs, int threads, const T* grad, const T* x, float* grad_weight) {
  return outputs > inputs ? outer_products(rows, inputs, outputs, threads, x, grad, true, grad_weight)
                          : outer_products(rows, outputs, inputs, threads, grad, x, false, grad_weight);
}

int pointwise(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* x, const float* weight,
              void* y) {
  return bf16 ? product(rows, inputs, outputs, threads, static_cast<const Bf16*>(x), weight, true,
                        static_cast<Bf16*>(y))
              : product(rows, inputs, outputs, threads, static_cast<const float*>(x), weight, true,
                        static_cast<float*>(y));
}

template <class T>
int pointwise_backward_of(long rows, long inputs, long outputs, int threads, const T* grad, const T* x,
                          const float* weight, T* grad_x, float* grad_weight) {
  if (grad_x != nullptr) {
    if (int failed = product(rows, outputs, inputs, threads, grad, weight, false, grad_x)) return failed;
  }
  return grad_weight == nullptr ? 0 : weight_gradient(rows, inputs, outputs, threads, grad, x, grad_weight);
}

int pointwise_backward(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* grad,
                       const void* x, const float* weight, void* grad_x, float* grad_weight) {
  return bf16 ? pointwise_backward_of(rows, inputs, outputs, threads, static_cast<const Bf16*>(grad),
                                      static_cast<const Bf16*>(x), weight, static_cast<Bf16*>(grad_x), grad_weight)
              : pointwise_backward_of(rows, inputs, outputs, threads, static_cast<const float*>(grad),
                                      static_cast<const float*>(x), weight, static_cast<float*>(grad_x), grad_weight);
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
