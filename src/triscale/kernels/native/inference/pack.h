// How the weights of products lie in memory. Included by layers.cpp.
//
// As panels of two vectors of outputs (the last may be one), each with all its inputs in order. In half precision a pair of
// inputs stands side by side for each output, as VDPBF16PS and matrix tiles take them.

#pragma once

namespace triscale {
namespace TRISCALE_ISA {
namespace {

constexpr int kPair = 2 * kLanes;  // outputs of a whole panel

// The values of one step of T: a single input, or a pair.
template <class T>
constexpr long step_of() {
  return sizeof(T) == 4 ? 1 : 2;
}

#if defined(TRISCALE_TILES)
constexpr bool kTiles = true;
#else
constexpr bool kTiles = false;
#endif

// A matrix tile takes up to 32 inputs of bf16 from each pixel. Those of a run are cut into as few parts as can be, each of
// whole lines of the cache where pixels are, else as even as they come.
struct Depths {
  long count, depth;

  explicit Depths(long inputs) : count((inputs + 31) / 32), depth(32) {
    if (filled(inputs) % 32 != 0) depth = round_up((inputs + count - 1) / count, 2);
  }
};

// So many inputs of a run have weights: whole steps, or whole tiles, filled up with zeros.
template <class T>
long padded(long inputs) {
  if constexpr (kTiles && Same<T, Bf16>::value) {
    const Depths parts(inputs);
    return parts.count * parts.depth;
  }
  return round_up(inputs, step_of<T>());
}

struct WeightPanels {
  long outputs;  // whole vectors

  explicit WeightPanels(long outputs_) : outputs(round_up(outputs_, kLanes)) {}
  long count() const { return (outputs + kPair - 1) / kPair; }
  long vectors(long panel) const { return min_of(kPair, outputs - panel * kPair) / kLanes; }
};

// Puts a value down as one of the type.
TRISCALE_INLINE void put(float* to, float value) { *to = value; }
TRISCALE_INLINE void put(Bf16* to, float value) { *to = narrow(value); }

// Packs the weights of (taps, inputs), whose rows of outputs lie where `place` says, as panels; each tap's inputs are
// filled up to whole steps of T.
template <class T, class Place>
void pack_panels(const float* from, long taps, long inputs, long outputs, Place place, T* to) {
  const WeightPanels panels(outputs);
  constexpr long kStep = step_of<T>();
  const long filled_up = padded<T>(inputs);
  for (long panel = 0; panel < panels.count(); panel++) {
    const long width = panels.vectors(panel) * kLanes, first = panel * kPair;
    for (long tap = 0; tap < taps; tap++) {
      for (long i = 0; i < filled_up; i += kStep) {
        for (long j = 0; j < width; j++) {
          const long output = first + Order<T>::output(j, width);
          for (long k = 0; k < kStep; k++) {
            const bool there = i + k < inputs && output < outputs;
            put(to++, there ? from[place(tap, i + k) * outputs + output] : 0.0f);
          }
        }
      }
    }
  }
}

// Packs biases in the order of the panels' outputs, and zeros up to `filled` places.
template <class T>
void pack_bias(const float* from, long outputs, float* to) {
  const WeightPanels panels(outputs);
  memset(to, 0, filled(panels.outputs) * sizeof(float));
  for (long panel = 0; panel < panels.count(); panel++) {
    const long width = panels.vectors(panel) * kLanes, first = panel * kPair;
    for (long j = 0; j < width; j++) {
      const long output = first + Order<T>::output(j, width);
      if (output < outputs) to[first + j] = from[output];
    }
  }
}

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale
