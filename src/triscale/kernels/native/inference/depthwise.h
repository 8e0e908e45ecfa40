// Depthwise convolutions, with the 1×1 expansion before them. Included by layers.cpp.
//
// A task takes a panel of channels and a band of rows. What the expansion makes stays in single precision in a
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

// What one vector of channels of some pixels of a row is made from: where their windows' rows begin, of which those from
// `from` to `to` lie in the map, and a pixel is `lanes` values from the next; taps and bias; and the limits, if any.
struct Filtered {
  const float* rows[31];
  long from, to, lanes;
  const float *taps, *bias;
  const Limits* limits;
};

// Puts values down, `apart` from one to the next.
template <int WIDTH, class Y>
TRISCALE_INLINE void put_down(Vec (&values)[WIDTH], const Limits* limits, Y* y, long apart) {
  if (limits != nullptr) {
    const Vec low = all(limits->low), high = all(limits->high);
    TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) values[i] = cut(values[i], low, high);
  }
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) store(y + i * apart, values[i], Full{});
}

template <int KERNEL, int STRIDE, int WIDTH, class Y>
void filter(const Layer&, long, const Filtered& s, Y* y, long apart) {
  Vec values[WIDTH];
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) values[i] = load(s.bias, Full{});
  for (long row = s.from; row < s.to; row++) {
    Vec weights[KERNEL];
    TRISCALE_UNROLL for (int k = 0; k < KERNEL; k++) weights[k] = load(s.taps + (row * KERNEL + k) * s.lanes, Full{});
    const float* x = s.rows[row];
    TRISCALE_UNROLL for (int j = 0; j < (WIDTH - 1) * STRIDE + KERNEL; j++) {
      const Vec value = kept(load(x + j * s.lanes, Full{}));
      TRISCALE_UNROLL for (int k = 0; k < KERNEL; k++) {
        if (j >= k && (j - k) % STRIDE == 0 && (j - k) / STRIDE < WIDTH) values[(j - k) / STRIDE] += value * weights[k];
      }
    }
  }
  put_down(values, s.limits, y, apart);
}

// The same for any kernel and stride.
template <class Y>
void filter_any(const Layer& layer, long width, const Filtered& s, Y* y, long apart) {
  for (long i = 0; i < width; i++) {
    Vec value[1] = {load(s.bias, Full{})};
    for (long row = s.from; row < s.to; row++) {
      const float *x = s.rows[row] + i * layer.stride * s.lanes, *taps = s.taps + row * layer.kernel * s.lanes;
      for (long k = 0; k < layer.kernel; k++) value[0] += load(x + k * s.lanes, Full{}) * load(taps + k * s.lanes, Full{});
    }
    put_down(value, s.limits, y + i * apart, apart);
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

template <class Y>
using Filter = void (*)(const Layer&, long width, const Filtered&, Y*, long apart);

template <int KERNEL, int STRIDE, class Y>
Filter<Y> filter_of_width(long width) {
  switch (width) {
    case 14: return filter<KERNEL, STRIDE, kWidest, Y>;
    case 10: return filter<KERNEL, STRIDE, least(10, kWidest), Y>;
    case 7: return filter<KERNEL, STRIDE, 7, Y>;
    case 4: return filter<KERNEL, STRIDE, 4, Y>;
    case 2: return filter<KERNEL, STRIDE, 2, Y>;
    default: return filter<KERNEL, STRIDE, 1, Y>;
  }
}

template <class Y>
Filter<Y> find_filter(const Layer& layer, long width) {
  switch (layer.stride <= 2 ? layer.kernel * 10 + layer.stride : 0) {
    case 31: return filter_of_width<3, 1, Y>(width);
    case 32: return filter_of_width<3, 2, Y>(width);
    case 51: return filter_of_width<5, 1, Y>(width);
    case 52: return filter_of_width<5, 2, Y>(width);
    case 71: return filter_of_width<7, 1, Y>(width);
    case 72: return filter_of_width<7, 2, Y>(width);
    default: return filter_any<Y>;
  }
}

// Activates VECTORS vectors of so many pixels and puts them where they belong. sums: where those from `fresh` on are added
// to, or null.
template <class T, int ACTIVATION, int VECTORS>
void settle(const float* from, long pixels, long fresh, T* to, long apart, Vec* sums) {
  Vec sum[VECTORS];
  auto put = [&](long begin, long end, bool counts) {
    for (long i = begin; i < end; i++) {
      TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) {
        const Vec value = activated<T, ACTIVATION>(load(from + (i * VECTORS + v) * kLanes, Full{}));
        if (counts) sum[v] += value;
        store(to + i * apart + v * kLanes, value, Full{});
      }
    }
  };
  if (sums == nullptr) return put(0, pixels, false);
  TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sum[v] = sums[v];
  put(0, fresh, false);
  put(fresh, pixels, true);
  TRISCALE_UNROLL for (int v = 0; v < VECTORS; v++) sums[v] = sum[v];
}

template <class T>
using Settle = void (*)(const float* from, long pixels, long fresh, T* to, long apart, Vec* sums);

template <class T>
Settle<T> find_settle(long activation, long vectors) {
  Settle<T> found = nullptr;
  with_activation(activation, [&](auto kind) {
    constexpr int kKind = decltype(kind)::value;
    found = vectors == 2 ? settle<T, kKind, 2> : settle<T, kKind, 1>;
  });
  return found;
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

  static long tasks(const Layer& layer) { return Panels(layer.channels).count() * bands(layer.out_height); }

  static long scratch(const Layer& layer) { return Ring(layer).values() * sizeof(float); }

  static void task(const Call& call, long task, void* scratch) {
    const Layer& layer = *call.layer;
    const long of = bands(layer.out_height), count = Panels(layer.channels).count();
    const long panel = task % count, part = task / count;
    const long begin = layer.out_height * part / of, end = layer.out_height * (part + 1) / of;
    const Panels panels(layer.channels);
    const long lanes = panels.vectors(panel) * kLanes, first = panel * kPair;
    const float* taps = static_cast<const float*>(call.packed) + first * (layer.kernel * layer.kernel + 1);
    const float* bias = taps + layer.kernel * layer.kernel * lanes;
    const long apart = lie(layer.channels);
    T* y = static_cast<T*>(call.output) + first;
    const Rows rows(call, panel, static_cast<float*>(scratch), most(0, begin * layer.stride - layer.top),
                    least(layer.height, (end - 1) * layer.stride - layer.top + layer.kernel));
    const Cover cover(layer.out_width);
    Vec found[2] = {all(0), all(0)}, *sums = call.sums == nullptr ? nullptr : found;
    Filtered seen;
    seen.lanes = lanes, seen.limits = sums == nullptr ? limits_of(layer.activation) : nullptr;
    const Filter<T> filter_at_once = find_filter<T>(layer, cover.width);
    const Filter<float> filter_first = find_filter<float>(layer, cover.width);
    const Settle<T> settle_then = find_settle<T>(layer.activation, lanes / kLanes);
    fetch(taps, static_cast<int>((layer.kernel * layer.kernel + 1) * lanes * sizeof(float) / 64));
    long tiles = 0;
    for (long i = begin; i < end; i++) {
      const long top = i * layer.stride - layer.top;
      seen.from = most(0, -top), seen.to = least(layer.kernel, layer.height - top);
      tiles = rows.fill(tiles, top + seen.to);
      for (long at = 0; at < cover.count; at++) {
        const long start = least(at * cover.width, layer.out_width - cover.width);
        T* out = y + (i * layer.out_width + start) * apart;
        alignas(64) float values[kWidest * kPair];
        for (long v = 0; v < lanes; v += kLanes) {
          seen.taps = taps + v, seen.bias = bias + v;
          for (long k = seen.from; k < seen.to; k++) seen.rows[k] = rows.at(top + k) + start * layer.stride * lanes + v;
          if (seen.limits != nullptr) {
            filter_at_once(layer, cover.width, seen, out + v, apart);
          } else {
            filter_first(layer, cover.width, seen, values + v, lanes);
          }
        }
        if (seen.limits == nullptr) settle_then(values, cover.width, at * cover.width - start, out, apart, sums);
      }
    }
    if (sums == nullptr) return;
    float* to = call.sums + part * apart + first;
    for (long v = 0; v < lanes; v += kLanes) store(to + v, sums[v / kLanes], Full{});
  }

 private:
  // The ring's rows, filled as they are asked for.
  class Rows {
   public:
    Rows(const Call& call, long panel, float* ring, long begin, long end)
        : layer_(*call.layer), of_(layer_), ring_(ring), panels_(layer_.channels), first_(panel * kPair),
          lanes_(panels_.vectors(panel) * kLanes), pixel_(begin * layer_.width),
          tiles_(most(1, (end - begin) * layer_.width)), window_{1, layer_.expand, &nowhere_},
            multiply_(tiles_, lanes_ / kLanes) {
      const long channels = layer_.expand > 0 ? layer_.expand : layer_.channels;
      apart_ = lie(channels);
      x_ = static_cast<const T*>(call.input);
      const float* singles = static_cast<const float*>(call.packed);
      bias_ = singles + filled((layer_.kernel * layer_.kernel + 1) * panels_.outputs) + first_;
      weight_ = reinterpret_cast<const T*>(singles + ExpandDepthwise::singles(layer_)) + first_ * window_.template padded<T>();
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
        if (pixel_ + tiles_.first(tile) >= until * layer_.width) break;
        fill_tile(pixel_ + tiles_.first(tile), tiles_.rows(tile));
      }
      return tile;
    }

   private:
    void fill_tile(long pixel, long rows) const {
      if (layer_.expand == 0) {
        const T* from = x_ + pixel * apart_ + first_;
        return each_run(pixel, rows, [&](long done, long count, float* to) {
          for (long r = done; r < done + count; r++, to += lanes_) {
            for (long v = 0; v < lanes_; v += kLanes) store(to + v, load(from + r * apart_ + v, Full{}), Full{});
          }
        });
      }
      const Limits* limits = limits_of(layer_.expand_activation);
      const long column = pixel % layer_.width;
      alignas(64) float sums[kRows * kPair];
      // What needs no more than limits goes where it belongs at once, if it lies in one row.
      float* to = limits != nullptr && column + rows <= layer_.width ? place(pixel / layer_.width, column) : sums;
      multiply_.of(rows)(x_ + pixel * apart_, apart_, window_, weight_, bias_, limits, to, lanes_);
      if (to != sums) return;
      with_activation(limits != nullptr ? kNone : layer_.expand_activation, [&](auto kind) {
        each_run(pixel, rows, [&](long done, long count, float* put) {
          for (long i = 0; i < count * lanes_; i += kLanes) {
            store(put + i, activated<T, decltype(kind)::value>(load(sums + done * lanes_ + i, Full{})), Full{});
          }
        });
      });
    }

    // Calls put(pixels of the tile before, pixels, where they go in the ring) for what of a tile lies in each row of the map.
    template <class Put>
    TRISCALE_INLINE void each_run(long pixel, long rows, Put put) const {
      long row = pixel / layer_.width, column = pixel % layer_.width;
      for (long done = 0; done < rows; row++, column = 0) {
        const long count = least(rows - done, layer_.width - column);
        put(done, count, place(row, column));
        done += count;
      }
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
    const TileProduct<T> multiply_;
  };
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
