// Whether a plan can be carried out: every number in it is looked at before anything is, so that a plan from anywhere
// reads and writes nothing but its own buffers.

#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <vector>

#include "inference/layer.h"

namespace triscale {
namespace inference {

constexpr int64_t kMostSide = 1 << 14, kMostChannels = 1 << 23, kMostKernel = 31, kMostValues = int64_t{1} << 36;

// What a buffer holds while the plan is read through.
struct Held {
  enum What { kNothing, kMap, kPlanes, kGates, kSums } what = kNothing;
  int64_t height = 0, width = 0, channels = 0;
};

// Whether a layer leaves a map, of the engine's precision, or gates and sums in fp32.
inline bool leaves_map(const Layer& layer) { return layer.kind != kExcite && layer.kind != kSum; }

// What a layer leaves in its output, in values for each image.
inline int64_t values_out(const Layer& layer) {
  switch (layer.kind) {
    case kInput: return layer.out_pixels() * (stays_planar(layer.channels) ? layer.channels : lie(layer.channels)) + kAlignment;
    case kExcite: return lie(layer.channels) + filled(layer.squeezed);
    case kSum: return bands(layer.height) * lie(layer.channels);
    default: return layer.out_pixels() * lie(layer.outputs) + kAlignment;
  }
}

class Checker {
 public:
  Checker(int64_t buffers, int64_t values, char* error, int64_t error_size)
      : held_(static_cast<size_t>(buffers)), values_(values), error_(error), error_size_(error_size) {}

  // Checks the next layer and notes what it leaves where. Completes it with what follows from those before.
  bool check(Layer& layer, int64_t place) {
    place_ = place;
    return ranges(layer) && shape(layer) && weights(layer) && buffers(layer);
  }

  const Held& held(int64_t buffer) const { return held_[static_cast<size_t>(buffer)]; }

  bool refuse(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    char text[160];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    snprintf(error_, static_cast<size_t>(error_size_), "layer %lld: %s", static_cast<long long>(place_), text);
    return false;
  }

 private:
  static bool within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

  bool ranges(const Layer& l) {
    if (!within(l.kind, 0, kKinds - 1)) return refuse("of no known kind");
    const int64_t sides[] = {l.height, l.width, l.out_height, l.out_width};
    for (int64_t side : sides) {
      if (!within(side, 1, kMostSide)) return refuse("a side of %lld pixels", static_cast<long long>(side));
    }
    if (!within(l.channels, 1, kMostChannels) || !within(l.outputs, 1, kMostChannels)) return refuse("channels out of range");
    if (!within(l.kernel, 1, kMostKernel) || !within(l.stride, 1, kMostSide)) return refuse("kernel or stride out of range");
    if (!within(l.top, 0, kMostSide) || !within(l.left, 0, kMostSide)) return refuse("padding out of range");
    if (!within(l.activation, 0, 4) || !within(l.last, 0, 4) || !within(l.expand_activation, 0, 4)) return refuse("an activation that there is not");
    if (!within(l.expand, 0, kMostChannels) || !within(l.squeezed, 0, kMostChannels)) return refuse("channels out of range");
    if (values_out(l) > kMostValues) return refuse("a map of too many values");
    return true;
  }

  bool shape(const Layer& l) {
    const bool same = l.out_height == l.height && l.out_width == l.width;
    switch (l.kind) {
      case kInput:
      case kPad:
        if (l.outputs != l.channels || l.top + l.height > l.out_height || l.left + l.width > l.out_width) return refuse("padding that does not fit");
        return true;
      case kConv:
        if ((l.out_height - 1) * l.stride + l.kernel > l.height || (l.out_width - 1) * l.stride + l.kernel > l.width) return refuse("windows beyond the map");
        if (l.gate >= 0 && (l.kernel != 1 || l.stride != 1)) return refuse("gates for a kernel that is not 1×1");
        // Runs over whole images go on where the input's rows do.
        if (l.kernel == 1 && l.stride == 1 && !same) return refuse("a map that changes its size");
        return true;
      case kDepthwise:
        if (l.outputs != l.channels) return refuse("as many outputs as channels are needed");
        return reaches(l);
      case kMaxPool:
        return l.outputs == l.channels ? reaches(l) : refuse("as many outputs as channels are needed");
      case kShrink:
        if (l.top != 0 || l.left != 0 || l.outputs < l.channels) return refuse("a shortcut that does not fit");
        return reaches(l);
      case kMean:
        return l.out_pixels() == 1 && l.outputs == l.channels ? true : refuse("one pixel is needed");
      case kExcite:
        return l.squeezed > 0 ? true : refuse("squeezed to nothing");
      default:  // kScale, kSum
        return same && l.outputs == l.channels ? true : refuse("a map that changes its size");
    }
  }

  // Every window has a pixel of the map in it, and the kernel may reach beyond by less than itself.
  bool reaches(const Layer& l) {
    const bool inside = l.top < l.kernel && l.left < l.kernel && (l.out_height - 1) * l.stride - l.top < l.height &&
                        (l.out_width - 1) * l.stride - l.left < l.width;
    return inside ? true : refuse("windows beyond the map");
  }

  bool span(int64_t offset, int64_t count) {
    if (!within(offset, 0, values_) || count > values_ - offset) return refuse("weights that are not in the plan");
    return true;
  }

  bool weights(const Layer& l) {
    switch (l.kind) {
      case kConv: return fits(l.kernel * l.kernel, l.channels, l.outputs) && span(l.weight, l.kernel * l.kernel * l.channels * l.outputs) && span(l.bias, l.outputs);
      case kDepthwise:
        if (!span(l.weight, l.kernel * l.kernel * l.channels) || !span(l.bias, l.channels)) return false;
        return l.expand == 0 || (fits(1, l.expand, l.channels) && span(l.weight2, l.expand * l.channels) && span(l.bias2, l.channels));
      case kExcite:
        return fits(1, l.channels, l.squeezed) && span(l.weight, l.channels * l.squeezed) && span(l.bias, l.squeezed) &&
               span(l.weight2, l.channels * l.squeezed) && span(l.bias2, l.channels);
      default: return true;
    }
  }

  bool fits(int64_t taps, int64_t inputs, int64_t outputs) {
    return taps * inputs <= kMostValues / outputs ? true : refuse("too many weights");
  }

  bool buffers(Layer& l) {
    const int64_t count = static_cast<int64_t>(held_.size());
    const bool reads_map = l.kind != kInput && l.kind != kExcite;
    const bool reads_gate = l.kind == kScale || (l.kind == kConv && l.gate >= 0);
    if (!within(l.output, 0, count - 1)) return refuse("an output that there is not");
    // Those too that this kind does not use.
    const int64_t named[] = {l.input, l.residual, l.gate, l.sums};
    for (int64_t buffer : named) {
      if (buffer >= count) return refuse("a buffer that there is not");
    }
    if (reads_map) {
      if (!holds(l.input, Held::kMap, l.height, l.width, l.kind == kDepthwise && l.expand > 0 ? l.expand : l.channels)) {
        if (l.kind != kConv || !holds(l.input, Held::kPlanes, l.height, l.width, l.channels)) return refuse("an input that is not there");
        l.planar = 1;
      }
      if (l.planar && l.gate >= 0) return refuse("gates for the network's input");
    }
    if (reads_gate && !holds(l.gate, Held::kGates, 1, 1, l.channels)) return refuse("gates that are not there");
    const bool adds = (l.kind == kConv || l.kind == kScale) && l.residual >= 0;
    if (adds && !holds(l.residual, Held::kMap, l.out_height, l.out_width, l.outputs)) return refuse("a shortcut that is not there");
    if (!adds && l.last != 0 && l.kind == kConv) return refuse("an activation after a shortcut that there is not");
    if (l.kind == kExcite && !holds(l.sums, Held::kSums, l.height, l.width, l.channels)) return refuse("sums that are not there");
    if (gates_map(l) && adds && l.residual == l.input) return refuse("a shortcut that the gates change");
    const bool leaves_sums = l.kind == kDepthwise && l.sums >= 0;
    if (leaves_sums && (!within(l.sums, 0, count - 1) || l.sums == l.output || l.sums == l.input)) return refuse("sums that have no place");
    const bool in_place = (reads_map && l.output == l.input) || (reads_gate && l.output == l.gate) || (adds && l.output == l.residual) ||
                          (l.kind == kExcite && l.output == l.sums);
    if (in_place) return refuse("an output in the place of an input");
    leave(l, leaves_sums);
    return true;
  }

  bool holds(int64_t buffer, Held::What what, int64_t height, int64_t width, int64_t channels) const {
    if (!within(buffer, 0, static_cast<int64_t>(held_.size()) - 1)) return false;
    const Held& found = held(buffer);
    return found.what == what && found.height == height && found.width == width && found.channels == channels;
  }

  void leave(const Layer& l, bool leaves_sums) {
    if (gates_map(l)) held_[static_cast<size_t>(l.input)] = {};
    Held& out = held_[static_cast<size_t>(l.output)];
    switch (l.kind) {
      case kInput: out = {stays_planar(l.channels) ? Held::kPlanes : Held::kMap, l.out_height, l.out_width, l.channels}; break;
      case kExcite: out = {Held::kGates, 1, 1, l.channels}; break;
      case kSum: out = {Held::kSums, l.height, l.width, l.channels}; break;
      default: out = {Held::kMap, l.out_height, l.out_width, l.outputs}; break;
    }
    if (leaves_sums) held_[static_cast<size_t>(l.sums)] = {Held::kSums, l.out_height, l.out_width, l.channels};
  }

  std::vector<Held> held_;
  int64_t values_;
  char* error_;
  int64_t error_size_, place_ = 0;
};

}  // namespace inference
}  // namespace triscale
