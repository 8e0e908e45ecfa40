// Depthwise convolutions, with the 1×1 expansion before them. Included by layers.cpp.
//
// A task takes a panel of channels and a band of rows. What the expansion makes stays as its sums are (in single precision
// but for fp16) in a ring of a few rows, with zeros left and right of it, and never goes to memory.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// The rows of the ring: as few as can be, so that they stay in the first cache.
struct Ring {
  long slots, width;

  explicit Ring(const Layer& layer) {
    width = max_of(layer.left + layer.width, (layer.out_width - 1) * layer.stride + layer.kernel);
    // Where tiles of pixels do not end with a row, they go on into the next ones.
    const bool even = layer.width % kPixelsAtOnce == 0;
    slots = min_of(layer.height, layer.kernel + (even ? 0 : (layer.width + kPixelsAtOnce - 2) / layer.width));
  }
  long values() const { return slots * width * kPair; }
};

// What one vector of channels of some pixels of a row is made from: where their windows' rows begin, of which those from
// `from` to `to` lie in the map, and a pixel is `lanes` values from the next; taps and bias; and the limits, if any.
template <class X>
struct Filtered {
  const X* rows[31];
  long from, to, lanes;
  const X *taps, *bias;
  const Limits* limits;
};

// Puts values down, `apart` from one to the next.
template <int WIDTH, class V, class Y>
TRISCALE_INLINE void put_down(V (&values)[WIDTH], const Limits* limits, Y* y, long apart) {
  if (limits != nullptr) {
    const V low = Get<V>::all_of(limits->low), high = Get<V>::all_of(limits->high);
    TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) values[i] = cut(values[i], low, high);
  }
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) store(y + i * apart, values[i], Full{});
}

template <int KERNEL, int STRIDE, int WIDTH, class V, class X, class Y>
void filter(const Layer&, long, const Filtered<X>& s, Y* y, long apart) {
  V values[WIDTH];
  TRISCALE_UNROLL for (int i = 0; i < WIDTH; i++) values[i] = Get<V>::from(s.bias);
  for (long row = s.from; row < s.to; row++) {
    V weights[KERNEL];
    TRISCALE_UNROLL for (int k = 0; k < KERNEL; k++) weights[k] = Get<V>::from(s.taps + (row * KERNEL + k) * s.lanes);
    const X* x = s.rows[row];
    TRISCALE_UNROLL for (int j = 0; j < (WIDTH - 1) * STRIDE + KERNEL; j++) {
      const V value = kept(Get<V>::from(x + j * s.lanes));
      TRISCALE_UNROLL for (int k = 0; k < KERNEL; k++) {
        if (j >= k && (j - k) % STRIDE == 0 && (j - k) / STRIDE < WIDTH) values[(j - k) / STRIDE] += value * weights[k];
      }
    }
  }
  put_down(values, s.limits, y, apart);
}

// The same for any kernel and stride.
template <class V, class X, class Y>
void filter_any(const Layer& layer, long width, const Filtered<X>& s, Y* y, long apart) {
  for (long i = 0; i < width; i++) {
    V value[1] = {Get<V>::from(s.bias)};
    for (long row = s.from; row < s.to; row++) {
      const X *x = s.rows[row] + i * layer.stride * s.lanes, *taps = s.taps + row * layer.kernel * s.lanes;
      for (long k = 0; k < layer.kernel; k++) value[0] += Get<V>::from(x + k * s.lanes) * Get<V>::from(taps + k * s.lanes);
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

template <class X, class Y>
using Filter = void (*)(const Layer&, long width, const Filtered<X>&, Y*, long apart);

template <int KERNEL, int STRIDE, class V, class X, class Y>
Filter<X, Y> filter_of_width(long width) {
  switch (width) {
    case 14: return filter<KERNEL, STRIDE, kWidest, V, X, Y>;
    case 10: return filter<KERNEL, STRIDE, min_of(10, kWidest), V, X, Y>;
    case 7: return filter<KERNEL, STRIDE, 7, V, X, Y>;
    case 4: return filter<KERNEL, STRIDE, 4, V, X, Y>;
    case 2: return filter<KERNEL, STRIDE, 2, V, X, Y>;
    default: return filter<KERNEL, STRIDE, 1, V, X, Y>;
  }
}

template <class V, class X, class Y>
Filter<X, Y> find_filter(const Layer& layer, long width) {
  switch (layer.stride <= 2 ? layer.kernel * 10 + layer.stride : 0) {
    case 31: return filter_of_width<3, 1, V, X, Y>(width);
    case 32: return filter_of_width<3, 2, V, X, Y>(width);
    case 51: return filter_of_width<5, 1, V, X, Y>(width);
    case 52: return filter_of_width<5, 2, V, X, Y>(width);
    case 71: return filter_of_width<7, 1, V, X, Y>(width);
    case 72: return filter_of_width<7, 2, V, X, Y>(width);
    default: return filter_any<V, X, Y>;
  }
}

// Activates COUNT vectors V of so many pixels and puts them where they belong. sums: where those from `fresh` on are added
// to, in single precision whatever V is, or null.
template <class T, Activation ACT, class V, int COUNT>
void settle(const Sum<T>* from, long pixels, long fresh, T* to, long apart, Vec* sums) {
  constexpr long kValues = sizeof(V) / sizeof(Sum<T>);
  constexpr long kSums = kValues / kLanes;  // of each vector
  Vec sum[COUNT * kSums] = {};
  auto put = [&](long begin, long end, bool counts) {
    for (long i = begin; i < end; i++) {
      TRISCALE_UNROLL for (int v = 0; v < COUNT; v++) {
        const V value = activated<T, ACT>(Get<V>::from(from + (i * COUNT + v) * kValues));
        if (counts) add_to_sums(sum + v * kSums, value);
        store(to + i * apart + v * kValues, value, Full{});
      }
    }
  };
  if (sums == nullptr) return put(0, pixels, false);
  put(0, fresh, false);
  put(fresh, pixels, true);
  TRISCALE_UNROLL for (int v = 0; v < COUNT * kSums; v++) sums[v] += sum[v];
}

template <class T>
using Settle = void (*)(const Sum<T>* from, long pixels, long fresh, T* to, long apart, Vec* sums);

// What goes through all vectors of a panel: chosen once for a task.
template <class T>
struct Panel {
  typedef Sum<T> X;
  long values;                     // of each vector
  Filter<X, T> filter_at_once;     // where nothing but limits follows
  Filter<X, X> filter_first;       // where it is settled later
  Settle<T> settle;

  Panel(const Layer& layer, long vectors, long width) {
    InVectors<T>::call(vectors, [&](auto vector, auto count) {
      using V = decltype(vector);
      constexpr int kCount = decltype(count)::value;
      values = sizeof(V) / sizeof(X);
      filter_at_once = find_filter<V, X, T>(layer, width);
      filter_first = find_filter<V, X, X>(layer, width);
      with_activation(layer.activation, [&](auto kind) { settle = triscale::TRISCALE_ISA::settle<T, decltype(kind)::value, V, kCount>; });
    });
  }
};

template <class T>
struct ExpandDepthwise {
  typedef Sum<T> X;

  // Bytes of taps and bias by panel, and of the expansion's bias; its panels follow.
  static long taps_size(const Layer& layer) {
    return filled((layer.kernel * layer.kernel + 1) * WeightPanels(layer.channels).outputs) * sizeof(X);
  }
  static long singles(const Layer& layer) {
    return taps_size(layer) + (layer.expand > 0 ? filled(WeightPanels(layer.channels).outputs) * sizeof(float) : 0);
  }

  static long packed(const Layer& layer) {
    return singles(layer) + padded<T>(layer.expand) * WeightPanels(layer.channels).outputs * sizeof(T);
  }

  static void pack(const Layer& layer, const float* values, void* to) {
    const WeightPanels panels(layer.channels);
    const long taps = layer.kernel * layer.kernel;
    X* at = static_cast<X*>(to);
    for (long panel = 0; panel < panels.count(); panel++) {
      const long width = panels.vectors(panel) * kLanes;
      for (long tap = 0; tap <= taps; tap++) {
        for (long j = panel * kPair; j < panel * kPair + width; j++) {
          const bool there = j < layer.channels;
          put(at++, !there ? 0 : tap < taps ? values[layer.weight + tap * layer.channels + j] : values[layer.bias + j]);
        }
      }
    }
    if (layer.expand == 0) return;
    char* begin = static_cast<char*>(to);
    pack_bias<T>(values + layer.bias2, layer.channels, reinterpret_cast<float*>(begin + taps_size(layer)));
    pack_panels(values + layer.weight2, 1, layer.expand, layer.channels, [](long, long input) { return input; }, reinterpret_cast<T*>(begin + singles(layer)));
  }

  static long tasks(const Layer& layer) { return WeightPanels(layer.channels).count() * bands(layer.out_height); }

  static long scratch(const Layer& layer) { return Ring(layer).values() * sizeof(X); }

  static void task(const Call& call, long task, void* scratch) {
    const Layer& layer = *call.layer;
    const long of = bands(layer.out_height), count = WeightPanels(layer.channels).count();
    const long panel = task % count, part = task / count;
    const long begin = layer.out_height * part / of, end = layer.out_height * (part + 1) / of;
    const WeightPanels panels(layer.channels);
    const long lanes = panels.vectors(panel) * kLanes, first = panel * kPair;
    const X* taps = static_cast<const X*>(call.packed) + first * (layer.kernel * layer.kernel + 1);
    const X* bias = taps + layer.kernel * layer.kernel * lanes;
    const long apart = lie(layer.channels);
    T* y = static_cast<T*>(call.output) + first;
    const RingRows rows(call, panel, static_cast<X*>(scratch), max_of(0, begin * layer.stride - layer.top),
                    min_of(layer.height, (end - 1) * layer.stride - layer.top + layer.kernel));
    const Cover cover(layer.out_width);
    Tournament whole[2];
    Vec found[2] = {all(0), all(0)}, *sums = call.sums == nullptr ? nullptr : found;
    Filtered<X> seen;
    seen.lanes = lanes, seen.limits = sums == nullptr ? limits_of(layer.activation) : nullptr;
    const Panel<T> by(layer, lanes / kLanes, cover.width);
    fetch(taps, static_cast<int>((layer.kernel * layer.kernel + 1) * lanes * sizeof(X) / 64));
    long tiles = 0;
    for (long i = begin; i < end; i++) {
      const long top = i * layer.stride - layer.top;
      seen.from = max_of(0, -top), seen.to = min_of(layer.kernel, layer.height - top);
      tiles = rows.fill(tiles, top + seen.to);
      for (long at = 0; at < cover.count; at++) {
        const long start = min_of(at * cover.width, layer.out_width - cover.width);
        T* out = y + (i * layer.out_width + start) * apart;
        alignas(64) X values[kWidest * kPair];
        for (long v = 0; v < lanes; v += by.values) {
          seen.taps = taps + v, seen.bias = bias + v;
          for (long k = seen.from; k < seen.to; k++) seen.rows[k] = rows.at(top + k) + start * layer.stride * lanes + v;
          if (seen.limits != nullptr) {
            by.filter_at_once(layer, cover.width, seen, out + v, apart);
          } else {
            by.filter_first(layer, cover.width, seen, values + v, lanes);
          }
        }
        if (seen.limits == nullptr) by.settle(values, cover.width, at * cover.width - start, out, apart, sums);
        if (sums != nullptr && (at + 1 == cover.count || (at + 1) % kInTurn == 0)) {
          TRISCALE_UNROLL for (int v = 0; v < 2; v++) whole[v].add(found[v]), found[v] = all(0);
        }
      }
    }
    if (sums == nullptr) return;
    float* to = call.sums + part * apart + first;
    for (long v = 0; v < lanes; v += kLanes) store(to + v, whole[v / kLanes].total(), Full{});
  }

 private:
  // The ring's rows, filled as they are asked for.
  class RingRows {
   public:
    RingRows(const Call& call, long panel, X* ring, long begin, long end)
        : layer_(*call.layer), of_(layer_), ring_(ring), panels_(layer_.channels), first_(panel * kPair),
          lanes_(panels_.vectors(panel) * kLanes), pixel_(begin * layer_.width),
          tiles_(max_of(1, (end - begin) * layer_.width)), window_{1, layer_.expand, &nowhere_},
            multiply_(tiles_, window_) {
      const long channels = layer_.expand > 0 ? layer_.expand : layer_.channels;
      apart_ = lie(channels);
      x_ = static_cast<const T*>(call.input);
      const char* begins = static_cast<const char*>(call.packed);
      bias_ = reinterpret_cast<const float*>(begins + taps_size(layer_)) + first_;
      weight_ = reinterpret_cast<const T*>(begins + singles(layer_)) + first_ * padded<T>(layer_.expand);
      const long right = layer_.left + layer_.width;
      for (long slot = 0; slot < of_.slots; slot++) {
        X* row = ring_ + slot * of_.width * lanes_;
        memset(row, 0, layer_.left * lanes_ * sizeof(X));
        memset(row + right * lanes_, 0, (of_.width - right) * lanes_ * sizeof(X));
      }
    }

    // Where the window of the first column begins in a row of the map.
    const X* at(long row) const { return ring_ + row % of_.slots * of_.width * lanes_; }

    // Goes on from a tile until all rows before `until` are there; returns the next tile.
    long fill(long tile, long until) const {
      for (; tile < tiles_.count; tile++) {
        if (pixel_ + tiles_.first(tile) >= until * layer_.width) break;
        fill_tile(tile);
      }
      return tile;
    }

   private:
    void fill_tile(long tile) const {
      const long pixel = pixel_ + tiles_.first(tile), rows = tiles_.rows(tile);
      if (layer_.expand == 0) {
        const T* from = x_ + pixel * apart_ + first_;
        return in_vectors([&](auto vector, long values) {
          using V = decltype(vector);
          each_run(pixel, rows, [&](long done, long count, X* to) {
            for (long r = done; r < done + count; r++, to += lanes_) {
              for (long v = 0; v < lanes_; v += values) store(to + v, Get<V>::from(from + r * apart_ + v), Full{});
            }
          });
        });
      }
      const Limits* limits = limits_of(layer_.expand_activation);
      const long column = pixel % layer_.width;
      alignas(64) X sums[kPixelsAtOnce * kPair];
      // What needs no more than limits goes where it belongs at once, if it lies in one row.
      X* to = limits != nullptr && column + rows <= layer_.width ? place(pixel / layer_.width, column) : sums;
      const long values = padded<T>(layer_.expand) * lanes_, step = lanes_ * step_of<T>() * sizeof(T);
      const Stream ahead = stream(weight_ + values, values * sizeof(T), step, tile, tiles_.count);
      multiply_(rows, lanes_ / kLanes, x_ + pixel * apart_, apart_, weight_, bias_, limits, to, lanes_, ahead);
      if (to != sums) return;
      in_vectors([&](auto vector, long values) {
        using V = decltype(vector);
        with_activation(limits != nullptr ? kNone : layer_.expand_activation, [&](auto kind) {
          each_run(pixel, rows, [&](long done, long count, X* put) {
            for (long i = 0; i < count * lanes_; i += values) {
              store(put + i, activated<T, decltype(kind)::value>(Get<V>::from(sums + done * lanes_ + i)), Full{});
            }
          });
        });
      });
    }

    // Calls block(V, values of one): what the panel is computed with.
    template <class Block>
    TRISCALE_INLINE void in_vectors(Block block) const {
      InVectors<T>::call(lanes_ / kLanes, [&](auto vector, auto) { block(vector, static_cast<long>(sizeof vector / sizeof(X))); });
    }

    // Calls put(pixels of the tile before, pixels, where they go in the ring) for what of a tile lies in each row of the map.
    template <class Put>
    TRISCALE_INLINE void each_run(long pixel, long rows, Put put) const {
      long row = pixel / layer_.width, column = pixel % layer_.width;
      for (long done = 0; done < rows; row++, column = 0) {
        const long count = min_of(rows - done, layer_.width - column);
        put(done, count, place(row, column));
        done += count;
      }
    }

    X* place(long row, long column) const {
      return ring_ + (row % of_.slots * of_.width + layer_.left + column) * lanes_;
    }

    const Layer& layer_;
    const Ring of_;
    X* ring_;
    const WeightPanels panels_;
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
