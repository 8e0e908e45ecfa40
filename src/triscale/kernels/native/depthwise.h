// Depthwise convolution and its gradients. Included by kernels.cpp.
//
// One vector of channels of a few neighbouring outputs stays in registers while the kernel's rows pass by: every input
// that is loaded serves all the outputs that see it.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// A plane of pixels and where a window lies on it.
struct Plane {
  long height, width, channels;
};

// Which of the `count` columns from `first` lie on a plane of that width: a bit each.
inline uint32_t columns_inside(long first, long count, long width) {
  const long from = most(0, -first), to = least(count, width - first);
  return to <= from ? 0 : ((1u << to) - 1) & ~((1u << from) - 1);
}

// Adds up WIDTH outputs of a row, from the windows whose first column is `column`, for the kernel rows [first, last);
// row 0 of the kernel lies on plane row `row`. `inside` tells which columns are there: the others cost nothing, and the
// question next to nothing beside the K multiplications that follow it.
template <int K, int S, int WIDTH, class T, class L>
TRISCALE_INLINE void outputs(const T* x, const Plane& plane, const float* weight, long weight_step, long row, long first,
                             long last, long column, uint32_t inside, T* y, L lanes) {
  constexpr int kSeen = (WIDTH - 1) * S + K;
  Vec sums[WIDTH];
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) sums[i] = all(0);
  for (long k = first; k < last; k++) {
    Vec taps[K];
    TRISCALE_UNROLL for (int i = 0; i < K; i++) taps[i] = load(weight + (k * K + i) * weight_step, Full{});
    const long at = ((row + k) * plane.width + column) * plane.channels;
    TRISCALE_UNROLL for (int j = 0; j < kSeen; j++) {
      if (!(inside & 1u << j)) continue;
      Vec value = load(x + (at + j * plane.channels), lanes);
      TRISCALE_UNROLL for (int i = 0; i < K; i++) {
        if (j >= i && (j - i) % S == 0 && (j - i) / S < WIDTH) sums[(j - i) / S] += value * taps[i];
      }
    }
  }
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) store(y + i * plane.channels, sums[i], lanes);
}

// One row of outputs, WIDTH at a time. Where their number is no multiple of it, the last ones are computed twice.
template <int K, int S, int WIDTH, class T>
inline void row_of(const T* x, const Plane& plane, const float* weight, long weight_step, long row, long left,
                   long out_width, T* y) {
  const long first = most(0, -row), last = least(K, plane.height - row);
  for (long done = 0; done < out_width; done += WIDTH) {
    const long start = least(done, out_width - WIDTH), column = start * S - left;
    const uint32_t inside = columns_inside(column, (WIDTH - 1) * S + K, plane.width);
    cover(plane.channels, [&](long c, auto lanes, long) {
      outputs<K, S, WIDTH>(x + c, plane, weight + c, weight_step, row, first, last, column, inside,
                           y + start * plane.channels + c, lanes);
    });
  }
}

// So many outputs at a time that few are computed twice; shorter blocks load more for each output.
inline int block_width(long width) {
  if (width < 4) return 1;
  return width > 4 && (width + 7) / 8 * 8 <= (width + 3) / 4 * 5 && width >= 8 ? 8 : 4;
}

template <int K, int S, class T>
inline void any_row(int block, const T* x, const Plane& plane, const float* weight, long weight_step, long row,
                    long left, long out_width, T* y) {
  switch (block) {
    case 8: return row_of<K, S, 8>(x, plane, weight, weight_step, row, left, out_width, y);
    case 4: return row_of<K, S, 4>(x, plane, weight, weight_step, row, left, out_width, y);
    default: return row_of<K, S, 1>(x, plane, weight, weight_step, row, left, out_width, y);
  }
}

// (channels, K, K) → (K·K, channels filled up with zeros to whole vectors), upside down where asked.
inline void transpose_weight(const float* weight, long channels, long taps, bool flipped, float* out) {
  const long step = round_up(channels, kLanes);
  memset(out, 0, taps * step * sizeof(float));
  for (long c = 0; c < channels; c++) {
    for (long k = 0; k < taps; k++) out[(flipped ? taps - 1 - k : k) * step + c] = weight[c * taps + k];
  }
}

template <int K, int S, class T>
int depthwise_of(const Depthwise& s, int threads, const T* x, const float* weight, T* y) {
  const long step = round_up(s.channels, kLanes);
  Scratch scratch(K * K * step * sizeof(float));
  if (!scratch.ok()) return -1;
  float* taps = scratch.at<float>(0);
  transpose_weight(weight, s.channels, K * K, false, taps);
  const Plane plane{s.height, s.width, s.channels};
  const int block = block_width(s.out_width);
  const long rows = s.images * s.out_height, line = s.out_width * s.channels;
  const long at_once = most(1, 16384 / line);
  for_each((rows + at_once - 1) / at_once, threads, [&](long task) {
    for (long r = task * at_once; r < least(rows, (task + 1) * at_once); r++) {
      const T* image = x + r / s.out_height * s.height * s.width * s.channels;
      const long row = r % s.out_height * S - s.top;
      any_row<K, S>(block, image, plane, taps, step, row, s.left, s.out_width, y + r * line);
    }
  });
  return 0;
}

// At stride 2: WIDTH (even) columns of the input's gradient from column `start`, where start + left is even. Which taps
// reach an input depends only on whether its place in the block is even.
template <int K, int WIDTH, class T, class L>
TRISCALE_INLINE void spread(const T* grad, const Depthwise& s, const float* weight, long weight_step, long row,
                            long start, T* out, L lanes) {
  Vec sums[WIDTH];
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) sums[i] = all(0);
  const long base = (start + s.left) / 2;
  for (long k = (row + s.top) & 1; k < K && k <= row + s.top; k += 2) {
    const long from = (row + s.top - k) / 2;
    if (from >= s.out_height) continue;
    Vec taps[K];
    TRISCALE_UNROLL for (int i = 0; i < K; i++) taps[i] = load(weight + (k * K + i) * weight_step, Full{});
    TRISCALE_UNROLL for (int o = -(K - 1) / 2; o < WIDTH / 2; o++) {
      const long column = base + o;
      if (static_cast<unsigned long>(column) >= static_cast<unsigned long>(s.out_width)) continue;
      Vec value = load(grad + (from * s.out_width + column) * s.channels, lanes);
      TRISCALE_UNROLL for (int j = 0; j < WIDTH; j++) {
        if (j - 2 * o >= 0 && j - 2 * o < K) sums[j] += value * taps[j - 2 * o];
      }
    }
  }
  TRISCALE_UNROLL for (int j = 0; j < WIDTH; j++) {
    if (start + j >= 0 && start + j < s.width) store(out + (start + j) * s.channels, sums[j], lanes);
  }
}

template <int K, int WIDTH, class T>
inline long spread_blocks(const T* grad, const Depthwise& s, const float* weight, long weight_step, long row,
                          long start, T* out) {
  cover(s.channels, [&](long c, auto lanes, long) {
    spread<K, WIDTH>(grad + c, s, weight + c, weight_step, row, start, out + c, lanes);
  });
  return start + WIDTH;
}

// One row of the input's gradient at stride 2.
template <int K, class T>
inline void spread_row(const T* grad, const Depthwise& s, const float* weight, long weight_step, long row, T* out) {
  long start = -(s.left & 1);
  if (start < 0) start = spread_blocks<K, 2>(grad, s, weight, weight_step, row, start, out);
  while (start < s.width) {
    const long left = s.width - start;
    if (left > 4) {
      start = spread_blocks<K, 8>(grad, s, weight, weight_step, row, start, out);
    } else if (left > 2) {
      start = spread_blocks<K, 4>(grad, s, weight, weight_step, row, start, out);
    } else {
      start = spread_blocks<K, 2>(grad, s, weight, weight_step, row, start, out);
    }
  }
}

// Some images, and of each the same output rows.
struct Unit {
  long image, images, row, rows;
};

// Adds the weight's gradient from a unit to `sums`, (K·K, channels), for one vector of channels and GROUP rows of the
// kernel from `first`, which all stay in registers. WIDTH outputs are taken at a time.
template <int K, int S, int GROUP, int WIDTH, class T, class L>
TRISCALE_INLINE void weigh(const T* x, const T* grad, const Depthwise& s, const Unit& unit, int first, double* sums,
                           long step, L lanes, long repeated) {
  constexpr int kSeen = (WIDTH - 1) * S + K;
  const int group = static_cast<int>(least(GROUP, K - first));
  Vec taps[GROUP][K];
  TRISCALE_UNROLL for (int r = 0; r < GROUP; r++) {
    TRISCALE_UNROLL for (int k = 0; k < K; k++) taps[r][k] = all(0);
  }
  for (long n = unit.image; n < unit.image + unit.images; n++) {
    for (long o = unit.row; o < unit.row + unit.rows; o++) {
      for (long start = 0; start < s.out_width; start += WIDTH) {
        Vec grads[WIDTH];
        const T* from = grad + ((n * s.out_height + o) * s.out_width + start) * s.channels;
        TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) {
          grads[i] = start + i < s.out_width ? load(from + i * s.channels, lanes) : all(0);
        }
        const long column = start * S - s.left;
        const uint32_t inside = columns_inside(column, kSeen, s.width);
        TRISCALE_UNROLL for (int r = 0; r < GROUP; r++) {
          const long row = o * S - s.top + first + r;
          if (r >= group || row < 0 || row >= s.height) continue;
          const long at = ((n * s.height + row) * s.width + column) * s.channels;
          TRISCALE_UNROLL for (int j = 0; j < kSeen; j++) {
            if (!(inside & 1u << j)) continue;
            Vec value = load(x + (at + j * s.channels), lanes);
            TRISCALE_UNROLL for (int k = 0; k < K; k++) {
              if (j >= k && (j - k) % S == 0 && (j - k) / S < WIDTH) taps[r][k] += value * grads[(j - k) / S];
            }
          }
        }
      }
    }
  }
  TRISCALE_UNROLL for (int r = 0; r < GROUP; r++) {
    TRISCALE_UNROLL for (int k = 0; k < K; k++) {
      if (r < group) {
        float values[kLanes];
        store(values, taps[r][k], Full{});
        add_to(sums + ((first + r) * K + k) * step + repeated, values + repeated, kLanes - repeated);
      }
    }
  }
}

template <int K, int S, class T>
inline void weigh_unit(const T* x, const T* grad, const Depthwise& s, const Unit& unit, double* sums) {
  // As many rows of the kernel as the registers hold beside four gradients and an input.
  constexpr int kFit = (kRegisters - 6) / K;
  constexpr int kGroup = kFit < 1 ? 1 : kFit > K ? K : K == 7 && kFit > 3 ? 3 : kFit;
  constexpr int kWide = kRegisters - 2 - kGroup * K >= 8 ? 8 : 4;
  const long step = round_up(s.channels, kLanes);
  cover(s.channels, [&](long c, auto lanes, long repeated) {
    for (int first = 0; first < K; first += kGroup) {
      if (s.out_width > 4) {
        weigh<K, S, kGroup, kWide>(x + c, grad + c, s, unit, first, sums + c, step, lanes, repeated);
      } else {
        weigh<K, S, kGroup, 4>(x + c, grad + c, s, unit, first, sums + c, step, lanes, repeated);
      }
    }
  });
}

// How a backward pass is cut: into units that stay in the cache while weights and inputs get their gradients, and the
// units into runs, each with sums of its own. Depends on shapes alone: so do the bits of the result.
struct Cut {
  long images_at_once, rows_at_once, strips, units, runs;

  Cut(const Depthwise& s, long value_bytes) {
    constexpr long kCache = 256 * 1024;
    const long image = (s.height * s.width + s.out_height * s.out_width) * s.channels * value_bytes;
    images_at_once = most(1, least(least(kCache / most(1, image), s.images), most(1, s.images / 16)));
    strips = images_at_once > 1 ? 1 : least(s.out_height, (image + kCache - 1) / kCache);
    rows_at_once = (s.out_height + strips - 1) / strips;
    strips = (s.out_height + rows_at_once - 1) / rows_at_once;
    units = (s.images + images_at_once - 1) / images_at_once * strips;
    // Sums are kept in double, and should be little beside the tensors they are made of.
    const long sums = s.kernel * s.kernel * s.channels * 8;
    runs = most(1, least(least(units, 64), most(4, s.images * image / (8 * sums))));
  }

  Unit unit(const Depthwise& s, long i) const {
    const long image = i / strips * images_at_once, row = i % strips * rows_at_once;
    return {image, least(images_at_once, s.images - image), row, least(rows_at_once, s.out_height - row)};
  }
};

template <int K, int S, class T>
inline void inputs_of(const T* grad, const Depthwise& s, const Unit& unit, const float* taps, long step, int block,
                      T* grad_x) {
  const Plane plane{s.out_height, s.out_width, s.channels};
  const long from = least(unit.row * S, s.height);
  const long to = unit.row + unit.rows == s.out_height ? s.height : least((unit.row + unit.rows) * S, s.height);
  for (long n = unit.image; n < unit.image + unit.images; n++) {
    const T* image = grad + n * s.out_height * s.out_width * s.channels;
    for (long row = from; row < to; row++) {
      T* out = grad_x + (n * s.height + row) * s.width * s.channels;
      if constexpr (S == 1) {
        // At stride 1 the input's gradient is a convolution too: of the output's, with the kernel upside down.
        any_row<K, 1>(block, image, plane, taps, step, row - (K - 1 - s.top), K - 1 - s.left, s.width, out);
      } else {
        spread_row<K>(image, s, taps, step, row, out);
      }
    }
  }
}

template <int K, int S, class T>
int depthwise_backward_of(const Depthwise& s, int threads, const T* grad, const T* x, const float* weight, T* grad_x,
                          float* grad_weight) {
  const Cut cut(s, sizeof(T));
  const long step = round_up(s.channels, kLanes), taps_size = K * K * step;
  Scratch scratch(taps_size * sizeof(float) + cut.runs * taps_size * sizeof(double));
  if (!scratch.ok()) return -1;
  float* taps = scratch.at<float>(0);
  double* sums = scratch.at<double>(taps_size * sizeof(float));
  transpose_weight(weight, s.channels, K * K, S == 1, taps);
  const int block = block_width(s.width);
  for_each(cut.runs, threads, [&](long run) {
    double* own = sums + run * taps_size;
    memset(own, 0, taps_size * sizeof(double));
    for (long i = cut.units * run / cut.runs; i < cut.units * (run + 1) / cut.runs; i++) {
      const Unit unit = cut.unit(s, i);
      if (grad_weight != nullptr) weigh_unit<K, S>(x, grad, s, unit, own);
      if (grad_x != nullptr) inputs_of<K, S>(grad, s, unit, taps, step, block, grad_x);
    }
  });
  if (grad_weight == nullptr) return 0;
  for (long c = 0; c < s.channels; c++) {
    for (long k = 0; k < K * K; k++) {
      double sum = 0;
      for (long run = 0; run < cut.runs; run++) sum += sums[run * taps_size + k * step + c];
      grad_weight[c * K * K + k] = static_cast<float>(sum);
    }
  }
  return 0;
}

// Calls call(kernel, stride) with both as types, for what there are kernels for; −2 for everything else, and for
// fewer channels than a vector without masks holds.
template <int N>
struct Number {
  static constexpr int value = N;
};

template <class Call>
inline int with_kernel(const Depthwise& s, Call call) {
  if (!enough(s.channels)) return -2;
  switch (s.kernel * 10 + s.stride) {
    case 31: return call(Number<3>{}, Number<1>{});
    case 32: return call(Number<3>{}, Number<2>{});
    case 51: return call(Number<5>{}, Number<1>{});
    case 52: return call(Number<5>{}, Number<2>{});
    case 71: return call(Number<7>{}, Number<1>{});
    case 72: return call(Number<7>{}, Number<2>{});
    default: return -2;
  }
}

int depthwise(const Depthwise* s, int bf16, int threads, const void* x, const float* weight, void* y) {
  return with_kernel(*s, [&](auto k, auto stride) {
    constexpr int kKernel = decltype(k)::value, kStride = decltype(stride)::value;
    if (bf16) {
      return depthwise_of<kKernel, kStride>(*s, threads, static_cast<const Bf16*>(x), weight, static_cast<Bf16*>(y));
    }
    return depthwise_of<kKernel, kStride>(*s, threads, static_cast<const float*>(x), weight, static_cast<float*>(y));
  });
}

int depthwise_backward(const Depthwise* s, int bf16, int threads, const void* grad, const void* x, const float* weight,
                       void* grad_x, float* grad_weight) {
  return with_kernel(*s, [&](auto k, auto stride) {
    constexpr int kKernel = decltype(k)::value, kStride = decltype(stride)::value;
    if (bf16) {
      return depthwise_backward_of<kKernel, kStride>(*s, threads, static_cast<const Bf16*>(grad),
                                                     static_cast<const Bf16*>(x), weight, static_cast<Bf16*>(grad_x),
                                                     grad_weight);
    }
    return depthwise_backward_of<kKernel, kStride>(*s, threads, static_cast<const float*>(grad),
                                                   static_cast<const float*>(x), weight, static_cast<float*>(grad_x),
                                                   grad_weight);
  });
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
