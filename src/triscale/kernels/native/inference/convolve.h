// Dense convolutions, the classifier among them. Included by layers.cpp.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

inline bool gates_weights(const Layer& layer) { return layer.gate >= 0 && !gates_map(layer); }

// Pixels of the output in runs along which the input's windows lie evenly apart: the whole map where the kernel is 1×1,
// else rows.
struct Runs {
  long count, pixels;
  long apart;                     // values from one window to the next
  long row;                       // values from one row of windows to the next
  long out_apart;

  explicit Runs(const Layer& layer) {
    const bool flat = layer.kernel == 1 && layer.stride == 1 && !layer.planar;
    const long values = layer.planar ? 1 : lie(layer.channels);
    out_apart = lie(layer.outputs);
    apart = layer.stride * values, row = layer.stride * layer.width * values;
    count = flat ? 1 : layer.out_height;
    pixels = flat ? layer.pixels() : layer.out_width;
  }
  long input(long run) const { return run * row; }
  long output(long run) const { return run * pixels * out_apart; }
};

// A window's taps: all channels of a pixel, or of planes a row of the kernel in each.
struct Taps {
  long offsets[31 * 31];
  Window window;

  explicit Taps(const Layer& layer) {
    const long kernel = layer.kernel;
    if (layer.planar) {
      for (long i = 0; i < layer.channels * kernel; i++) offsets[i] = (i / kernel * layer.height + i % kernel) * layer.width;
      window = {layer.channels * kernel, kernel, offsets};
    } else {
      for (long i = 0; i < kernel * kernel; i++) offsets[i] = (i / kernel * layer.width + i % kernel) * lie(layer.channels);
      window = {kernel * kernel, layer.channels, offsets};
    }
  }

  // Where the plan has the weights of an input of a tap: (kernel, kernel, channels, outputs).
  static long place(const Layer& layer, long tap, long input) {
    if (!layer.planar) return tap * layer.channels + input;
    return (tap % layer.kernel * layer.kernel + input) * layer.channels + tap / layer.kernel;
  }
};
static_assert(4 * 31 <= 31 * 31, "the taps of planes");

// How the work is divided: each panel of outputs by itself, and tiles of pixels into `down` parts. By shape alone, and
// into more parts than there are threads, so that they end together.
struct Division {
  long down, across;

  Division(long tiles, long panels) : down(max_of(1, min_of(tiles / 4, (15 + panels) / panels))), across(min_of(panels, 64)) {}
};

template <class T>
struct Conv {
  static long packed(const Layer& layer) {
    Taps taps(layer);
    const WeightPanels panels(layer.outputs);
    return filled(panels.outputs) * sizeof(float) + taps.window.taps * padded<T>(taps.window.inputs) * panels.outputs * sizeof(T);
  }

  static void pack(const Layer& layer, const float* values, void* to) {
    Taps taps(layer);
    const WeightPanels panels(layer.outputs);
    float* bias = static_cast<float*>(to);
    pack_bias<T>(values + layer.bias, layer.outputs, bias);
    pack_panels(values + layer.weight, taps.window.taps, taps.window.inputs, layer.outputs,
                [&](long tap, long input) { return Taps::place(layer, tap, input); },
                reinterpret_cast<T*>(bias + filled(panels.outputs)));
  }

  static Division divided(const Layer& layer) {
    const Runs runs(layer);
    return Division(runs.count * Tiles(runs.pixels).count, WeightPanels(layer.outputs).count());
  }

  // A panel with its inputs scaled.
  static long scratch(const Layer& layer) {
    return !gates_weights(layer) ? 0 : padded<T>(layer.channels) * kPair * static_cast<long>(sizeof(T));
  }

  // Phase 0 of one whose map is gated: so many pixels a task.
  static constexpr long kGatedAtOnce = 16;
  static long gate_parts(const Layer& layer) { return (layer.pixels() + kGatedAtOnce - 1) / kGatedAtOnce; }

  static void gate(const Call& call, long part) {
    const Layer& layer = *call.layer;
    const long apart = lie(layer.channels), begin = part * kGatedAtOnce, end = min_of(layer.pixels(), begin + kGatedAtOnce);
    T* x = static_cast<T*>(call.input) + begin * apart;
    for (long i = begin; i < end; i++, x += apart) {
      for (long c = 0; c < layer.channels; c += kLanes) store(x + c, load(x + c, Full{}) * load(call.gate + c, Full{}), Full{});
    }
  }

  static void task(const Call& call, long task, void* scratch) {
    const Layer& layer = *call.layer;
    const bool gated = gates_weights(layer);
    const Taps taps(layer);
    const WeightPanels panels(layer.outputs);
    const Runs runs(layer);
    const Tiles tiles(runs.pixels);
    const Division parts(runs.count * tiles.count, panels.count());
    const long down = task / parts.across, across = task % parts.across;
    const long begin = runs.count * tiles.count * down / parts.down, end = runs.count * tiles.count * (down + 1) / parts.down;
    const float* bias = static_cast<const float*>(call.packed);
    const T* weights = reinterpret_cast<const T*>(bias + filled(panels.outputs));
    const long inputs = taps.window.taps * padded<T>(taps.window.inputs);
    const Limits* limits = call.residual == nullptr ? limits_of(layer.activation) : nullptr;
    T* y = static_cast<T*>(call.output);
    const TileProduct<T> multiply(tiles, taps.window);
    for (long panel = panels.count() * across / parts.across; panel < panels.count() * (across + 1) / parts.across; panel++) {
      const long vectors = panels.vectors(panel), first = panel * kPair;
      const T* weight = weights + first * inputs;
      if (gated) scale(weight, call.gate, layer.channels, vectors, static_cast<T*>(scratch));
      const T* panel_weight = gated ? static_cast<const T*>(scratch) : weight;
      const T* next = weight + vectors * kLanes * inputs;
      for (long at = begin; at < end; at++) {
        const long run = at / tiles.count, tile = at % tiles.count, pixel = tiles.first(tile), rows = tiles.rows(tile);
        const T* x = static_cast<const T*>(call.input) + runs.input(run) + pixel * runs.apart;
        const long out = runs.output(run) + pixel * runs.out_apart + first;
        const long step = vectors * kLanes * step_of<T>() * sizeof(T), bytes = vectors * kLanes * inputs * sizeof(T);
        const Stream ahead = stream(next, bytes, step, at - begin, end - begin);
        if constexpr (Same<T, Sum<T>>::value) {
          if (limits != nullptr && call.logits == nullptr) {
            multiply(rows, vectors, x, runs.apart, panel_weight, bias + first, limits, y + out, runs.out_apart, ahead);
            continue;
          }
        }
        alignas(64) Sum<T> sums[kPixelsAtOnce * kPair];
        multiply(rows, vectors, x, runs.apart, panel_weight, bias + first, nullptr, sums, vectors * kLanes, ahead);
        finish(layer, sums, rows, vectors, runs.out_apart, call, out);
      }
    }
  }

 private:
  typedef int64_t GatePairs __attribute__((vector_size(sizeof(Vec))));

  // Each input's weights times its gate; those that no input has stay zeros.
  static void scale(const float* from, const float* gate, long inputs, long vectors, float* to) {
    for (long i = 0; i < inputs; i++) {
      const Vec factor = all(gate[i]);
      fetch(from + ahead(1) / sizeof(float), vectors);
      for (long v = 0; v < vectors; v++, from += kLanes, to += kLanes) store(to, load(from, Full{}) * factor, Full{});
    }
  }

  template <class Half>
  static void scale(const Half* from, const float* gate, long inputs, long vectors, Half* to) {
    for (long i = 0; i < inputs; i += 2) {
      int64_t pair;  // moved as one, so that one instruction fills a vector with it
      memcpy(&pair, gate + i, sizeof pair);
      const Vec factor = (Vec)(pair - GatePairs{});
      fetch(from + ahead(1) / sizeof(Half), vectors);
      for (long v = 0; v < 2 * vectors; v++, from += kLanes, to += kLanes) store(to, load(from, Full{}) * factor, Full{});
    }
    memset(to, 0, (padded<Half>(inputs) - round_up(inputs, 2)) * vectors * kLanes * sizeof(Half));
  }

  static void finish(const Layer& layer, Sum<T>* sums, long rows, long vectors, long apart, const Call& call, long out) {
    InVectors<T>::call(vectors, [&](auto vector, auto count) {
      using V = decltype(vector);
      constexpr int kCount = decltype(count)::value;
      if (call.logits != nullptr) {  // of one pixel
        with_activation(layer.activation, [&](auto kind) { activate<V, decltype(kind)::value>(sums, kCount); });
        for (long i = 0; i < vectors * kLanes; i += kLanes) store(call.logits + out + i, load(sums + i, Full{}), Full{});
        return;
      }
      if (call.residual == nullptr) {
        with_activation(layer.activation, [&](auto kind) { write<V, kCount, decltype(kind)::value, false>(sums, rows, apart, call, out); });
        return;
      }
      if (layer.activation != kNone) {
        with_activation(layer.activation, [&](auto kind) { activate<V, decltype(kind)::value>(sums, rows * kCount); });
      }
      with_activation(layer.last, [&](auto kind) { write<V, kCount, decltype(kind)::value, true>(sums, rows, apart, call, out); });
    });
  }

  template <class V>
  static constexpr long lanes() {
    return sizeof(V) / sizeof(Sum<T>);
  }

  template <class V, Activation ACT>
  static void activate(Sum<T>* sums, long count) {
    for (long i = 0; i < count; i++, sums += lanes<V>()) store(sums, activated<T, ACT>(Get<V>::from(sums)), Full{});
  }

  template <class V, int COUNT, Activation ACT, bool ADD>
  static void write(const Sum<T>* sums, long rows, long apart, const Call& call, long out) {
    const T* residual = static_cast<const T*>(call.residual);
    T* to = static_cast<T*>(call.output);
    for (long r = 0; r < rows; r++, out += apart) {
      TRISCALE_UNROLL for (long v = 0; v < COUNT; v++, sums += lanes<V>()) {
        V value = Get<V>::from(sums);
        if (ADD) value += Get<V>::from(residual + out + v * lanes<V>());
        store(to + out + v * lanes<V>(), activated<T, ACT>(value), Full{});
      }
    }
  }
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
