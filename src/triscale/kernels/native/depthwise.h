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

// Which of `count` columns (or rows) from `first` lie on a plane of that width (or height): a bit each.
inline uint32_t inside_of(long first, long count, long width) {
  const long from = max_of(0, -first), to = min_of(count, width - first);
  return to <= from ? 0 : ((1u << to) - 1) & ~((1u << from) - 1);
}

// Adds up WIDTH outputs of a row, from the windows whose first column is `column`, for the kernel rows [first, last);
// row 0 of the kernel lies on plane row `row`. `inside` tells which columns are there: the others cost nothing. WHOLE: all
// are, and it is not asked for each.
template <int K, int S, int WIDTH, bool WHOLE, class X, class Y, class L>
TRISCALE_INLINE void outputs(const X* x, const Plane& plane, const float* weight, long weight_step, long row, long first,
                             long last, long column, uint32_t inside, Y* y, L lanes) {
  constexpr int kSeen = (WIDTH - 1) * S + K;
  const long channels = plane.channels;
  Vec sums[WIDTH];
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) sums[i] = all(0);
  for (long k = first; k < last; k++) {
    Vec taps[K];
    TRISCALE_UNROLL for (int i = 0; i < K; i++) taps[i] = load(weight + (k * K + i) * weight_step, Full{});
    long at = ((row + k) * plane.width + column) * channels;  // of columns that are not there, no pointer is made
    TRISCALE_UNROLL for (int j = 0; j < kSeen; j++, at += channels) {
      if (!WHOLE && !(inside & 1u << j)) continue;
      const Vec value = kept(load(x + at, lanes));
      TRISCALE_UNROLL for (int i = 0; i < K; i++) {
        if (j >= i && (j - i) % S == 0 && (j - i) / S < WIDTH) sums[(j - i) / S] += value * taps[i];
      }
    }
  }
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++, y += channels) store(y, sums[i], lanes);
}

// One row of outputs, WIDTH at a time. Where their number is no multiple of it, the last ones are computed twice.
template <int K, int S, int WIDTH, class X, class Y>
inline void row_of(const X* x, const Plane& plane, const float* weight, long weight_step, long row, long left,
                   long out_width, Y* y) {
  const long first = max_of(0, -row), last = min_of(K, plane.height - row);
  for (long done = 0; done < out_width; done += WIDTH) {
    const long start = min_of(done, out_width - WIDTH), column = start * S - left;
    constexpr int kSeen = (WIDTH - 1) * S + K;
    const uint32_t inside = inside_of(column, kSeen, plane.width);
    auto all_channels = [&](auto whole) {
      cover(plane.channels, [&](long c, auto lanes, long) {
        outputs<K, S, WIDTH, decltype(whole)::value != 0>(x + c, plane, weight + c, weight_step, row, first, last, column,
                                                          inside, y + start * plane.channels + c, lanes);
      });
    };
    if (inside == inside_of(0, kSeen, kSeen)) {
      all_channels(Number<1>{});
    } else {
      all_channels(Number<0>{});
    }
  }
}

// So many outputs at a time that few are computed twice; shorter blocks load more for each output.
inline int block_width(long width) {
  if (width < 4) return 1;
  return width > 4 && (width + 7) / 8 * 8 <= (width + 3) / 4 * 5 && width >= 8 ? 8 : 4;
}

template <int K, int S, class X, class Y>
inline void any_row(int block, const X* x, const Plane& plane, const float* weight, long weight_step, long row,
                    long left, long out_width, Y* y) {
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

// At stride 2: WIDTH (even) columns of the input's gradient from column `start`, where start + left is even. Which taps
// reach an input depends only on whether its place in the block is even.
template <int K, int WIDTH, class L>
TRISCALE_INLINE void spread(const float* grad, long first, const DepthwiseShape& s, const float* weight, long weight_step,
                            long row, long start, float* out, L lanes) {
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
      Vec value = load(grad + ((from - first) * s.out_width + column) * s.channels, lanes);
      TRISCALE_UNROLL for (int j = 0; j < WIDTH; j++) {
        if (j - 2 * o >= 0 && j - 2 * o < K) sums[j] += value * taps[j - 2 * o];
      }
    }
  }
  TRISCALE_UNROLL for (int j = 0; j < WIDTH; j++) {
    if (start + j >= 0 && start + j < s.width) store(out + (start + j) * s.channels, sums[j], lanes);
  }
}

template <int K, int WIDTH>
inline long spread_blocks(const float* grad, long first, const DepthwiseShape& s, const float* weight, long weight_step,
                          long row, long start, float* out) {
  cover(s.channels, [&](long c, auto lanes, long) {
    spread<K, WIDTH>(grad + c, first, s, weight + c, weight_step, row, start, out + c, lanes);
  });
  return start + WIDTH;
}

// One row of the input's gradient at stride 2. grad: of an image, from output row `first`.
template <int K>
inline void spread_row(const float* grad, long first, const DepthwiseShape& s, const float* weight, long weight_step, long row,
                       float* out) {
  long start = -(s.left & 1);
  if (start < 0) start = spread_blocks<K, 2>(grad, first, s, weight, weight_step, row, start, out);
  while (start < s.width) {
    const long left = s.width - start;
    if (left > 4) {
      start = spread_blocks<K, 8>(grad, first, s, weight, weight_step, row, start, out);
    } else if (left > 2) {
      start = spread_blocks<K, 4>(grad, first, s, weight, weight_step, row, start, out);
    } else {
      start = spread_blocks<K, 2>(grad, first, s, weight, weight_step, row, start, out);
    }
  }
}

// Some images, and of each the same output rows.
struct Unit {
  long image, images, row, rows;
};

// Rows of a tensor that are at hand in single precision: from row `first`, so many for each image of a unit.
struct Seen {
  const float* rows;
  long first, count;
};

// Adds the weight's gradient from a part of a unit to `sums`, (K·K, channels), for one vector of channels and GROUP rows of
// the kernel from `first`, which all stay in registers. WIDTH outputs are taken at a time. image: the unit's first.
template <int K, int S, int GROUP, int WIDTH, class L>
TRISCALE_INLINE void weigh(const float* x, const Seen& seen, const float* grad, const Seen& grads, const DepthwiseShape& s,
                           long image, const Unit& part, int first, double* sums, long step, L lanes, long repeated) {
  constexpr int kSeen = (WIDTH - 1) * S + K;
  const int group = static_cast<int>(min_of(GROUP, K - first));
  Vec taps[GROUP][K];
  TRISCALE_UNROLL for (int r = 0; r < GROUP; r++) {
    TRISCALE_UNROLL for (int k = 0; k < K; k++) taps[r][k] = all(0);
  }
  const long channels = s.channels;
  // whole: every row of the group and every column is there.
  auto add = [&](auto whole, const float* from, long at, long there, uint32_t inside, uint32_t rows) {
    constexpr bool kWhole = decltype(whole)::value != 0;
    Vec given[WIDTH];
    TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++, from += channels) {
      given[i] = kWhole || i < there ? kept(load(from, lanes)) : all(0);
    }
    TRISCALE_UNROLL for (int r = 0; r < GROUP; r++, at += s.width * channels) {
      if (!kWhole && !(rows & 1u << r)) continue;
      long seen_at = at;
      TRISCALE_UNROLL for (int j = 0; j < kSeen; j++, seen_at += channels) {
        if (!kWhole && !(inside & 1u << j)) continue;
        const Vec value = kept(load(x + seen_at, lanes));
        TRISCALE_UNROLL for (int k = 0; k < K; k++) {
          if (j >= k && (j - k) % S == 0 && (j - k) / S < WIDTH) taps[r][k] += value * given[(j - k) / S];
        }
      }
    }
  };
  for (long n = part.image; n < part.image + part.images; n++) {
    for (long o = part.row; o < part.row + part.rows; o++) {
      const long top = o * S - s.top + first;
      const uint32_t rows = inside_of(top, group, s.height);
      const bool all_rows = rows == inside_of(0, GROUP, GROUP);
      for (long start = 0; start < s.out_width; start += WIDTH) {
        const float* from = grad + (((n - image) * grads.count + o - grads.first) * s.out_width + start) * channels;
        const long column = start * S - s.left;
        const uint32_t inside = inside_of(column, kSeen, s.width);
        const long at = (((n - image) * seen.count + top - seen.first) * s.width + column) * channels;
        if (all_rows && start + WIDTH <= s.out_width && inside == inside_of(0, kSeen, kSeen)) {
          add(Number<1>{}, from, at, WIDTH, inside, rows);
        } else {
          // Columns that only outputs beyond the row would see are left out: their 0 times what is no number is none.
          const long there = min_of(WIDTH, s.out_width - start);
          add(Number<0>{}, from, at, there, inside & ((1u << ((there - 1) * S + K)) - 1), rows);
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

// Calls call(part) for parts of a unit with few enough outputs to be summed in single precision, one after another.
template <class Call>
inline void each_part(const Unit& unit, long out_width, Call call) {
  constexpr long kOutputs = 512;
  const long rows = max_of(1, min_of(unit.rows, kOutputs / out_width));
  const long images = rows < unit.rows ? 1 : max_of(1, kOutputs / (rows * out_width));
  const long last_image = unit.image + unit.images, last_row = unit.row + unit.rows;
  for (long n = unit.image; n < last_image; n += images) {
    for (long row = unit.row; row < last_row; row += rows) {
      call(Unit{n, min_of(images, last_image - n), row, min_of(rows, last_row - row)});
    }
  }
}

template <int K, int S>
inline void weigh_unit(const Seen& seen, const Seen& grads, const DepthwiseShape& s, const Unit& unit, double* sums) {
  // As many rows of the kernel as the registers hold beside four gradients and an input.
  constexpr int kFit = (kRegisters - 6) / K;
  constexpr int kGroup = kFit < 1 ? 1 : kFit > K ? K : K == 7 && kFit > 3 ? 3 : kFit;
  constexpr int kWidth = kRegisters - 2 - kGroup * K >= 8 ? 8 : 4;
  const long step = round_up(s.channels, kLanes);
  cover(s.channels, [&](long c, auto lanes, long repeated) {
    for (int first = 0; first < K; first += kGroup) {
      each_part(unit, s.out_width, [&](const Unit& part) {
        if (s.out_width > 4) {
          weigh<K, S, kGroup, kWidth>(seen.rows + c, seen, grads.rows + c, grads, s, unit.image, part, first, sums + c, step,
                                     lanes, repeated);
        } else {
          weigh<K, S, kGroup, 4>(seen.rows + c, seen, grads.rows + c, grads, s, unit.image, part, first, sums + c, step,
                                 lanes, repeated);
        }
      });
    }
  });
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
