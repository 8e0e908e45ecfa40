// Everything between convolutions: padding, squeeze-excite, pooling. Included by layers.cpp.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

constexpr long kInputRows = 16;  // a task's

inline long input_parts(const Layer& layer) { return (layer.out_height + kInputRows - 1) / kInputRows; }

// Puts a row of values down as T.
TRISCALE_INLINE void put_row(const float* from, long n, float* to) { memcpy(to, from, n * sizeof(float)); }
template <class Half>
TRISCALE_INLINE void put_row(const float* from, long n, Half* to) {
  each_vector(n, [&](long at, auto lanes) { store(to + at, load(from + at, lanes), lanes); });
}

// Some rows of the network's input, (channels, height, width), with zeros around it: as planes, or as a map.
template <class T>
void take_input(const Call& call, long part) {
  const Layer& layer = *call.layer;
  const long begin = part * kInputRows;
  const long end = min_of(layer.out_height, begin + kInputRows), right = layer.left + layer.width;
  const bool planar = stays_planar(layer.channels);
  const long apart = planar ? 1 : lie(layer.channels);
  T* y = static_cast<T*>(call.output);
  if (!planar) memset(y + begin * layer.out_width * apart, 0, (end - begin) * layer.out_width * apart * sizeof(T));
  for (long c = 0; c < layer.channels; c++) {
    for (long i = begin; i < end; i++) {
      const long from = i - layer.top;
      const bool inside = from >= 0 && from < layer.height;
      const float* at = call.x + (c * layer.height + from) * layer.width;
      if (planar) {
        T* row = y + (c * layer.out_height + i) * layer.out_width;
        memset(row, 0, (inside ? layer.left : layer.out_width) * sizeof(T));
        if (!inside) continue;
        put_row(at, layer.width, row + layer.left);
        memset(row + right, 0, (layer.out_width - right) * sizeof(T));
      } else if (inside) {
        T* row = y + (i * layer.out_width + layer.left) * apart + c;
        for (long j = 0; j < layer.width; j++) put(row + j * apart, at[j]);
      }
    }
  }
}

template <class T>
void pad(const Call& call) {
  const Layer& layer = *call.layer;
  const long apart = lie(layer.channels);
  const T* x = static_cast<const T*>(call.input);
  T* y = static_cast<T*>(call.output);
  const long right = (layer.out_width - layer.left - layer.width) * apart;
  for (long i = 0; i < layer.out_height; i++, y += layer.out_width * apart) {
    const long from = i - layer.top;
    if (from < 0 || from >= layer.height) {
      memset(y, 0, layer.out_width * apart * sizeof(T));
      continue;
    }
    T* inside = y + layer.left * apart;
    memset(y, 0, layer.left * apart * sizeof(T));
    memcpy(inside, x + from * layer.width * apart, layer.width * apart * sizeof(T));
    memset(inside + layer.width * apart, 0, right * sizeof(T));
  }
}

template <class T>
void scale(const Call& call) {
  const Layer& layer = *call.layer;
  const long apart = lie(layer.channels);
  const T *x = static_cast<const T*>(call.input), *residual = static_cast<const T*>(call.residual);
  T* y = static_cast<T*>(call.output);
  with_activation(layer.last, [&](auto kind) {
    for (long p = 0; p < layer.pixels() * apart; p += apart) {
      for (long c = 0; c < layer.channels; c += kLanes) {
        Vec value = load(x + p + c, Full{}) * load(call.gate + c, Full{});
        if (residual != nullptr) value += load(residual + p + c, Full{});
        store(y + p + c, activated<T, decltype(kind)::value>(value), Full{});
      }
    }
  });
}

// The part of a window that lies in the map.
struct Clipped {
  long from, to;
  Clipped(long at, long kernel, long side) : from(max_of(0, at)), to(min_of(side, at + kernel)) {}
};

template <class T, bool MAX>
void pool_windows(const Call& call) {
  const Layer& layer = *call.layer;
  const long apart = lie(layer.channels), out_apart = lie(layer.outputs), outputs = round_up(layer.outputs, kLanes);
  const T* x = static_cast<const T*>(call.input);
  T* y = static_cast<T*>(call.output);
  for (long i = 0; i < layer.out_height; i++) {
    const Clipped rows(i * layer.stride - layer.top, layer.kernel, layer.height);
    for (long j = 0; j < layer.out_width; j++, y += out_apart) {
      const Clipped columns(j * layer.stride - layer.left, layer.kernel, layer.width);
      const float share = 1.0f / static_cast<float>((rows.to - rows.from) * (columns.to - columns.from));
      for (long c = 0; c < outputs; c += kLanes) {
        const long lanes = layer.channels - c;
        if (lanes < kLanes) store(y + c, all(0), Full{});
        if (lanes <= 0) continue;
        Vec found = MAX ? load(x + (rows.from * layer.width + columns.from) * apart + c, Full{}) : all(0);
        for (long row = rows.from; row < rows.to; row++) {
          for (long column = columns.from; column < columns.to; column++) {
            const Vec value = load(x + (row * layer.width + column) * apart + c, Full{});
            found = !MAX ? found + value : (value > found) | (value != value) ? value : found;  // what is no number stays none
          }
        }
        if (!MAX) found *= share;
        if (lanes < kLanes) {  // those beyond the channels may be no numbers, where a map is infinite, and can be outputs
          store(y + c, found, First(lanes));
        } else {
          store(y + c, found, Full{});
        }
      }
    }
  }
}

// A sum of many: what was added up of equally many is added to each other, as in a tournament. One after another, equal
// values would all be rounded to the same side, by an error that grows with how many there are and not with their logarithm.
class Tournament {
 public:
  TRISCALE_INLINE void add(Vec value) {
    long k = 0;
    for (long n = count_++; n & 1; n >>= 1) value += level_[k++];
    level_[k] = value;
  }
  Vec total() const {
    Vec sum = all(0);
    long k = 0;
    for (long n = count_; n > 0; n >>= 1, k++) {
      if (n & 1) sum += level_[k];
    }
    return sum;
  }

 private:
  long count_ = 0;
  Vec level_[48];  // of 1, 2, 4, … values: there where the count has that bit
};
constexpr long kInTurn = 16;  // values that may be added up one after another

// Sums over all pixels of a map, times a factor.
template <class T, class Out>
void add_up(const Call& call, float factor, Out* y) {
  const Layer& layer = *call.layer;
  const long apart = lie(layer.channels), pixels = layer.pixels();
  const T* x = static_cast<const T*>(call.input);
  for (long c = 0; c < layer.channels; c += kLanes) {
    Tournament sum;
    for (long i = 0; i < pixels; i += kInTurn) {
      Vec few = all(0);
      for (long j = i; j < min_of(i + kInTurn, pixels); j++) few += load(x + j * apart + c, Full{});
      sum.add(few);
    }
    store(y + c, sum.total() * factor, Full{});
  }
}

template <class T>
void average(const Call& call) {
  T* y = static_cast<T*>(call.output);
  add_up<T>(call, 1.0f / static_cast<float>(call.layer->pixels()), y);
}

// As a depthwise convolution leaves them: in bands, of which one has it all.
template <class T>
void sum(const Call& call) {
  const long apart = lie(call.layer->channels), of = bands(call.layer->height);
  float* y = static_cast<float*>(call.output);
  memset(y, 0, of * apart * sizeof(float));
  add_up<T>(call, 1.0f, y);
}

// Gates from sums. Weights are kept as what products of T are summed in, and multiplied as fp32.
template <class T>
struct Excite {
  typedef Sum<T> W;

  static long squeezed(const Layer& layer) { return round_up(layer.squeezed, kLanes); }
  static long channels(const Layer& layer) { return round_up(layer.channels, kLanes); }
  static long packed(const Layer& layer) {
    return (channels(layer) + squeezed(layer)) * sizeof(float) + 2 * channels(layer) * squeezed(layer) * sizeof(W);
  }

  static void pack(const Layer& layer, const float* values, void* to) {
    const long wide = channels(layer), narrow = squeezed(layer);
    float* biases = static_cast<float*>(to);
    W* at = reinterpret_cast<W*>(biases + narrow + wide);
    memset(to, 0, packed(layer));
    memcpy(biases, values + layer.bias, layer.squeezed * sizeof(float));
    memcpy(biases + narrow, values + layer.bias2, layer.channels * sizeof(float));
    columns(values + layer.weight, layer.channels, layer.squeezed, wide, at);
    columns(values + layer.weight2, layer.squeezed, layer.channels, layer.squeezed, at + wide * narrow);
  }

  // (rows, outputs) as one column of vectors after another, each of so many rows.
  static void columns(const float* from, long rows, long outputs, long apart, W* to) {
    for (long i = 0; i < rows; i++) {
      for (long j = 0; j < outputs; j++) put(to + j / kLanes * kLanes * apart + i * kLanes + j % kLanes, from[i * outputs + j]);
    }
  }

  static long scratch(const Layer& layer) { return channels(layer) * sizeof(float); }

  // Tasks: each vector of what is squeezed; then, when all of those are there, so many gates each.
  static constexpr long kGates = 16 * kLanes;
  static long parts(const Layer& layer, long phase) {
    return phase == 0 ? squeezed(layer) / kLanes : (channels(layer) + kGates - 1) / kGates;
  }

  static void task(const Call& call, long part, float* means) {
    if (call.phase == 0) {
      squeeze(call, part * kLanes, means);
    } else {
      expand(call, part * kGates);
    }
  }

 private:
  // The gates, and behind them what was squeezed.
  static float* gates(const Call& call) {
    return static_cast<float*>(call.output);
  }

  static void squeeze(const Call& call, long r, float* means) {
    const Layer& layer = *call.layer;
    const long wide = channels(layer), narrow = squeezed(layer), apart = lie(layer.channels), of = bands(layer.height);
    const float* bias = static_cast<const float*>(call.packed);
    const W* weights = reinterpret_cast<const W*>(bias + narrow + wide) + r * wide;
    const float* sums = call.sums;
    const Vec share = all(1.0f / static_cast<float>(layer.pixels()));
    for (long c = 0; c < wide; c += kLanes) {
      Tournament sum;
      for (long band = 0; band < of; band++) sum.add(load(sums + band * apart + c, Full{}));
      store(means + c, sum.total() * share, Full{});
    }
    Vec found[4] = {load(bias + r, Full{}), all(0), all(0), all(0)};  // apart, so that they do not wait
    for (long c = 0; c < wide; c += 4) {
      TRISCALE_UNROLL for (int k = 0; k < 4; k++) found[k] += all(means[c + k]) * load(weights + (c + k) * kLanes, Full{});
    }
    const Vec all_of_it = (found[0] + found[1]) + (found[2] + found[3]);
    with_activation(layer.activation, [&](auto kind) {
      store(gates(call) + lie(layer.channels) + r, activated<float, decltype(kind)::value>(all_of_it), Full{});
    });
  }

  static void expand(const Call& call, long begin) {
    const Layer& layer = *call.layer;
    const long wide = channels(layer), narrow = squeezed(layer);
    const float* bias = static_cast<const float*>(call.packed) + narrow;
    const W* weights = reinterpret_cast<const W*>(bias + wide) + wide * narrow;
    float *gate = gates(call), *hidden = gate + lie(layer.channels);
    for (long c = begin; c < min_of(wide, begin + kGates); c += kLanes) {
      Vec found[2] = {load(bias + c, Full{}), all(0)};
      for (long r = 0; r < layer.squeezed; r++) found[r & 1] += all(hidden[r]) * load(weights + c * layer.squeezed + r * kLanes, Full{});
      store(gate + c, logistic<float>(found[0] + found[1]), Full{});
    }
  }
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
