// What the inference engine is made of: a network as a list of layers, and what every instruction set provides for them.
//
// A map is NHWC: pixel after pixel, `lie(channels)` values from one to the next, those beyond the channels 0. Values are
// of the engine's precision; gates and sums of maps are always fp32.

#pragma once

#include <stdint.h>

namespace triscale {
namespace inference {

// Of maps, weights and products.
enum Precision : int { kFp32, kBf16, kFp16 };

enum Kind : int64_t { kInput, kPad, kConv, kDepthwise, kExcite, kScale, kMaxPool, kShrink, kMean, kSum, kKinds };

// One row of a plan. Buffers are numbers, weights are offsets into the plan's values; -1 is none.
struct Layer {
  int64_t kind, input, output, residual, gate, sums;
  int64_t height, width, channels, out_height, out_width, outputs;
  int64_t kernel, stride, top, left;
  int64_t activation, last;           // before a residual is added, and after it
  int64_t expand, expand_activation;  // depthwise: the channels before a 1×1 expansion; 0 for none
  int64_t weight, bias, weight2, bias2, squeezed;
  int64_t planar;  // found when the plan is checked: the input is a network's own, one plane after another

  int64_t pixels() const { return height * width; }
  int64_t out_pixels() const { return out_height * out_width; }
};
constexpr int64_t kFields = 25;
static_assert(sizeof(Layer) == (kFields + 1) * sizeof(int64_t), "a layer is a row of integers");

constexpr int64_t kAlignment = 16;  // values by which pixels are aligned, whatever the instruction set

inline int64_t filled(int64_t channels) { return (channels + kAlignment - 1) / kAlignment * kAlignment; }

// From one pixel to the next. Not a multiple of 256 values: the rows of a product would then fall on the same few
// places of the first cache and drive each other out.
inline int64_t lie(int64_t channels) {
  const int64_t values = filled(channels);
  return values % 256 == 0 ? values + 2 * kAlignment : values;
}

// A convolution's gates are multiplied into its map, in place, or into its weights: into what is less work. A weight takes
// about three times as long as a value of the map, which is in the second cache while weights come from beyond it.
inline bool gates_map(const Layer& layer) {
  return layer.kind == kConv && layer.gate >= 0 && layer.pixels() < 3 * filled(layer.outputs);
}

// A layer's phases: the next begins when all tasks of the one before are done.
inline int64_t phases(const Layer& layer) { return layer.kind == kExcite || gates_map(layer) ? 2 : 1; }

// Images of few channels stay as they come, one plane after another: as pixels they would be mostly zeros.
inline bool stays_planar(int64_t channels) { return channels <= 4; }

// Bands of rows whose sums are kept apart, so that they can be computed at the same time. By shape alone: the result
// must not depend on how many threads there are.
inline int64_t bands(int64_t rows) { return rows >= 56 ? (rows + 27) / 28 : 1; }

// Everything a task needs, of one image.
struct Call {
  const Layer* layer;
  const void* packed;  // the layer's weights as this instruction set wants them
  int64_t phase;
  const float* x;  // of the network, for kInput
  void* input;  // changed by a convolution alone whose gates are multiplied into it
  const void* residual;
  const float* gate;
  float* sums;
  void* output;
  float* logits;  // of the last layer, where its sums are the answer as they are; else null
};

struct EngineKernels {
  // Bytes of a layer's packed weights, and the packing.
  int64_t (*packed)(const Layer*, int precision);
  void (*pack)(const Layer*, int precision, const float* values, void* packed);
  // Into how many tasks a phase of the layer falls, and one of them, with memory of its own.
  int64_t (*tasks)(const Layer*, int64_t phase);
  int64_t (*scratch)(const Layer*, int precision);
  void (*task)(const Call*, int precision, int64_t task, void* scratch);
  // Values as floats.
  void (*answer)(int precision, const void* from, int64_t count, float* to);
  // Multiplies as fast as it can, so many times over; returns the multiply-accumulates.
  int64_t (*limit)(int precision, int64_t repeats);
  // Whether a product of bf16 is what it should be.
  bool (*sound)();
  int multiplies;  // a bit for each precision that it has
};

}  // namespace inference
}  // namespace triscale
