// Depthwise convolutions, with the 1×1 expansion before them. Included by layers.cpp.
//
// A task takes a panel of channels, an image and a band of rows. What the expansion makes stays in single precision in a
// ring of a few rows, with zeros left and right of it, and never goes to memory.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// The rows of the ring: as few as can be, so that they stay in the first cache.
struct Ring {
  long slots, width;

  explicit Ring(const Layer& layer) {
    width = most(layer.left + layer.width, (layer.out_width - 1) * layer.stride + layer.kernel);
    // Where tiles of pixels do not end with a row, they go on into the next ones.
    const bool even = layer.width % kRows == 0;
    slots = least(layer.height, layer.kernel + (even ? 0 : (layer.width + kRows - 2) / layer.width));
  }
  long values() const { return slots * width * kPair; }
};

// WIDTH pixels of a row of one vector of channels. rows: where their windows' rows begin, of which those from `from` to
// `to` lie in the map. A pixel is `lanes` values from the next, in the ring and in y.
template <int KERNEL, int STRIDE, int WIDTH>
TRISCALE_INLINE void filter(const float* const* rows, long from, long to, const float* taps, long lanes, const float* bias, float* y) {
  Vec values[WIDTH];
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) values[i] = load(bias, Full{});
  for (long row = from; row < to; row++) {
    Vec weights[KERNEL];
    TRISCALE_UNROLL for (int k = 0; k < KERNEL; k++) weights[k] = load(taps + (row * KERNEL + k) * lanes, Full{});
    const float* x = rows[row];
    TRISCALE_UNROLL for (int j = 0; j < (WIDTH - 1) * STRIDE + KERNEL; j++) {
      const Vec value = load(x + j * lanes, Full{});
      TRISCALE_UNROLL for (int k = 0; k < KERNEL; k++) {
        if (j >= k && (j - k) % STRIDE == 0 && (j - k) / STRIDE < WIDTH) values[(j - k) / STRIDE] += value * weights[k];
      }
    }
  }
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) store(y + i * lanes, values[i], Full{});
}

// The same for any kernel and stride.
inline void filter_any(const Layer& layer, long width, const float* const* rows, long from, long to, const float* taps, long lanes,
                       const float* bias, float* y) {
  for (long i = 0; i < width; i++) {
    Vec value = load(bias, Full{});
    for (long row = from; row < to; row++) {
      const float* x = rows[row] + i * layer.stride * lanes;
      for (long k = 0; k < layer.kernel; k++) value += load(x + k * lanes, Full{}) * load(taps + (row * layer.kernel + k) * lanes, Full{});
    }
    store(y + i * lanes, value, Full{});
  }
}

// How a row is covered by one width of those that are compiled: the one that computes the fewest pixels.
constexpr int kWidest = kRegisters == 32 ? 14 : 7;

struct Cover {
  long width, count;

  explicit Cover(long pixels) : width(1), count(pixels) {
    constexpr int kWidths[] = {14, 10, 7, 4, 2};
    for (int at : kWidths) {
      if (at > pixels || at > kWidest) continue;
      const long needed = (pixels + at - 1) / at;
      // Wide ones load each pixel and weight for more of the output.
      if (needed * (at + 2) < count * (width + 2)) width = at, count = needed;
    }
  }
};

template <int KERNEL, int STRIDE>
void filter_width(long width, const float* const* rows, long from, long to, const float* taps, long lanes, const float* bias, float* y) {
  switch (width) {
    case 14: if constexpr (kWidest == 14) return filter<KERNEL, STRIDE, 14>(rows, from, to, taps, lanes, bias, y); break;
    case 10: if constexpr (kWidest == 14) return filter<KERNEL, STRIDE, 10>(rows, from, to, taps, lanes, bias, y); break;
    case 7: return filter<KERNEL, STRIDE, 7>(rows, from, to, taps, lanes, bias, y);
    case 4: return filter<KERNEL, STRIDE, 4>(rows, from, to, taps, lanes, bias, y);
    case 2: return filter<KERNEL, STRIDE, 2>(rows, from, to, taps, lanes, bias, y);
    default: return filter<KERNEL, STRIDE, 1>(rows, from, to, taps, lanes, bias, y);
  }
}

inline void filter_by(const Layer& layer, long width, const float* const* rows, long from, long to, const float* taps, long lanes,
                      const float* bias, float* y) {
  switch (layer.stride <= 2 ? layer.kernel * 10 + layer.stride : 0) {
    case 31: return filter_width<3, 1>(width, rows, from, to, taps, lanes, bias, y);
    case 32: return filter_width<3, 2>(width, rows, from, to, taps, lanes, bias, y);
    case 51: return filter_width<5, 1>(width, rows, from, to, taps, lanes, bias, y);
    case 52: return filter_width<5, 2>(width, rows, from, to, taps, lanes, bias, y);
    case 71: return filter_width<7, 1>(width, rows, from, to, taps, lanes, bias, y);
    case 72: return filter_width<7, 2>(width, rows, from, to, taps, lanes, bias, y);
    default: return filter_any(layer, width, rows, from, to, taps, lanes, bias, y);
  }
}

// Activates VECTORS vectors of so many pixels and puts them where they belong; adds those from `fresh` on to the sums.
template <class T, int ACTIVATION, int VECTORS>
void settle(const float* from, long pixels, long fresh, T* to, long apart, Vec* sums) {
  Vec sum[VECTORS];
  TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sum[v] = sums[v];
  for (long i = 0; i < pixels; i++, from += VECTORS * kLanes, to += apart) {
    TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
      const Vec value = activated<T, ACTIVATION>(load(from + v * kLanes, Full{}));
      if (i >= fresh) sum[v] += value;
      store(to + v * kLanes, value, Full{});
    }
  }
  TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[v] = sum[v];
}

template <class T>
struct ExpandDepthwise {
  // Taps and bias by panel, the expansion's bias, the expansion's panels.
  static long singles(const Layer& layer) {
    const long channels = Panels(layer.channels).outputs;
    return filled((layer.kernel * layer.kernel + 1) * channels) + (layer.expand > 0 ? filled(channels) : 0);
  }

  static long packed(const Layer& layer) {
    const long inputs = round_up(layer.expand, step_of<T>());
    return singles(layer) * sizeof(float) + inputs * Panels(layer.channels).outputs * sizeof(T);
  }

  static void pack(const Layer& layer, const float* values, void* to) {
    const Panels panels(layer.channels);
    const long taps = layer.kernel * layer.kernel;
    float* at = static_cast<float*>(to);
    for (long panel = 0; panel < panels.count(); panel++) {
      const long width = panels.vectors(panel) * kLanes;
      for (long tap = 0; tap <= taps; tap++) {
        for (long j = panel * kPair; j < panel * kPair + width; j++) {
          const bool there = j < layer.channels;
          *at++ = !there ? 0 : tap < taps ? values[layer.weight + tap * layer.channels + j] : values[layer.bias + j];
        }
      }
    }
    if (layer.expand == 0) return;
    float* bias = static_cast<float*>(to) + filled((taps + 1) * panels.outputs);
    for (long j = 0; j < filled(panels.outputs); j++) bias[j] = j < layer.channels ? values[layer.bias2 + j] : 0;
    pack_panels(values + layer.weight2, 1, layer.expand, layer.channels, [](long, long input) { return input; }, reinterpret_cast<T*>(static_cast<float*>(to) + singles(layer)));
  }

  static long tasks(const Layer& layer, long images) { return Panels(layer.channels).count() * images * bands(layer.out_height); }

  static long scratch(const Layer& layer) { return Ring(layer).values() * sizeof(float); }

  static void task(const Call& call, long task, void* scratch) {
    const Layer& layer = *call.layer;
    const long of = bands(layer.out_height), part = task % of, image = task / of % call.images, panel = task / of / call.images;
    const long begin = layer.out_height * part / of, end = layer.out_height * (part + 1) / of;
    const Panels panels(layer.channels);
    const long lanes = panels.vectors(panel) * kLanes, first = panel * kPair;
    const float* taps = static_cast<const float*>(call.packed) + first * (layer.kernel * layer.kernel + 1);
    const float* bias = taps + layer.kernel * layer.kernel * lanes;
    const long apart = lie(layer.channels);
    T* y = static_cast<T*>(call.output) + image * layer.out_pixels() * apart + first;
    const Rows rows(call, image, panel, static_cast<float*>(scratch), most(0, begin * layer.stride - layer.top),
                    least(layer.height, (end - 1) * layer.stride - layer.top + layer.kernel));
    const Cover cover(layer.out_width);
    Vec sums[2] = {all(0), all(0)};
    long tiles = 0;
    for (long i = begin; i < end; i++) {
      const long top = i * layer.stride - layer.top;
      const long from = most(0, -top), to = least(layer.kernel, layer.height - top);
      tiles = rows.fill(tiles, top + to);
      for (long at = 0; at < cover.count; at++) {
        const long start = least(at * cover.width, layer.out_width - cover.width);
        alignas(64) float values[kWidest * kPair];
        for (long v = 0; v < lanes; v += kLanes) {
          const float* seen[31];
          for (long k = from; k < to; k++) seen[k] = rows.at(top + k) + start * layer.stride * lanes + v;
          filter_by(layer, cover.width, seen, from, to, taps + v, lanes, bias + v, values + v);
        }
        T* out = y + (i * layer.out_width + start) * apart;
        const long fresh = at * cover.width - start;
        with_activation(layer.activation, [&](auto kind) {
          constexpr int kKind = decltype(kind)::value;
          if (lanes == kPair) {
            settle<T, kKind, 2>(values, cover.width, fresh, out, apart, sums);
          } else {
            settle<T, kKind, 1>(values, cover.width, fresh, out, apart, sums);
          }
        });
      }
    }
    if (call.sums == nullptr) return;
    float* kept = call.sums + (image * of + part) * apart + first;
    for (long v = 0; v < lanes; v += kLanes) store(kept + v, sums[v / kLanes], Full{});
  }

 private:
  // The ring's rows, filled as they are asked for.
  class Rows {
   public:
    Rows(const Call& call, long image, long panel, float* ring, long begin, long end)
        : layer_(*call.layer), of_(layer_), ring_(ring), panels_(layer_.channels), first_(panel * kPair),
          lanes_(panels_.vectors(panel) * kLanes), pixel_(begin * layer_.width),
          tiles_(most(1, (end - begin) * layer_.width)), window_{1, layer_.expand, &nowhere_} {
      const long channels = layer_.expand > 0 ? layer_.expand : layer_.channels;
      apart_ = lie(channels);
      x_ = static_cast<const T*>(call.input) + image * layer_.pixels() * apart_;
      const float* singles = static_cast<const float*>(call.packed);
      bias_ = singles + filled((layer_.kernel * layer_.kernel + 1) * panels_.outputs) + first_;
      weight_ = reinterpret_cast<const T*>(singles + ExpandDepthwise::singles(layer_)) + first_ * window_.template padded<T>();
      multiply_ = find_product<T, kRows>(tiles_.rows, lanes_ / kLanes);
      const long right = layer_.left + layer_.width;
      for (long slot = 0; slot < of_.slots; slot++) {
        float* row = ring_ + slot * of_.width * lanes_;
        memset(row, 0, layer_.left * lanes_ * sizeof(float));
        memset(row + right * lanes_, 0, (of_.width - right) * lanes_ * sizeof(float));
      }
    }

    // Where the window of the first column begins in a row of the map.
    const float* at(long row) const { return ring_ + row % of_.slots * of_.width * lanes_; }

    // Goes on from a tile until all rows before `until` are there; returns the next tile.
    long fill(long tile, long until) const {
      for (; tile < tiles_.count; tile++) {
        if (tile > 0 && pixel_ + tiles_.first(tile - 1) + tiles_.rows >= until * layer_.width) break;
        fill_tile(pixel_ + tiles_.first(tile));
      }
      return tile;
    }

   private:
    void fill_tile(long pixel) const {
      long row = pixel / layer_.width, column = pixel % layer_.width;
      float* to = place(row, column);
      auto next = [&] {
        to += lanes_;
        if (++column == layer_.width) column = 0, to = place(++row, 0);
      };
      if (layer_.expand == 0) {
        const T* from = x_ + pixel * apart_ + first_;
        for (long r = 0; r < tiles_.rows; r++, from += apart_, next()) {
          for (long v = 0; v < lanes_; v += kLanes) store(to + v, load(from + v, Full{}), Full{});
        }
        return;
      }
      alignas(64) float sums[kRows * kPair];
      multiply_(x_ + pixel * apart_, apart_, window_, weight_, bias_, sums);
      with_activation(layer_.expand_activation, [&](auto kind) {
        const float* from = sums;
        for (long r = 0; r < tiles_.rows; r++, next()) {
          for (long v = 0; v < lanes_; v += kLanes, from += kLanes) {
            store(to + v, activated<T, decltype(kind)::value>(load(from, Full{})), Full{});
          }
        }
      });
    }

    float* place(long row, long column) const {
      return ring_ + (row % of_.slots * of_.width + layer_.left + column) * lanes_;
    }

    const Layer& layer_;
    const Ring of_;
    float* ring_;
    const Panels panels_;
    const long first_, lanes_, pixel_;
    const Tiles tiles_;
    const long nowhere_ = 0;
    const Window window_;
    long apart_;
    const T* x_;
    const float* bias_;
    const T* weight_;
    Product<T> multiply_;
  };
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
