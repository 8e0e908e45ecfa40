// The inference engine's layers in one instruction set: compiled once for each, with TRISCALE_ISA as its name.

#include "inference/layer.h"

#include "interface.h"
#include "vectors.h"

using namespace triscale::inference;

#include "inference/product.h"
#include "inference/convolve.h"
#include "inference/maps.h"
#include "inference/depthwise.h"

namespace triscale {
namespace TRISCALE_ISA {
namespace {

int64_t packed(const Layer* layer, int bf16) {
  switch (layer->kind) {
    case kConv: return bf16 ? Conv<Bf16>::packed(*layer) : Conv<float>::packed(*layer);
    case kDepthwise: return bf16 ? ExpandDepthwise<Bf16>::packed(*layer) : ExpandDepthwise<float>::packed(*layer);
    case kExcite: return Excite::packed(*layer);
    default: return 0;
  }
}

void pack(const Layer* layer, int bf16, const float* values, void* to) {
  switch (layer->kind) {
    case kConv: return bf16 ? Conv<Bf16>::pack(*layer, values, to) : Conv<float>::pack(*layer, values, to);
    case kDepthwise: return bf16 ? ExpandDepthwise<Bf16>::pack(*layer, values, to) : ExpandDepthwise<float>::pack(*layer, values, to);
    case kExcite: return Excite::pack(*layer, values, to);
    default: return;
  }
}

int64_t tasks(const Layer* layer, int64_t phase) {
  switch (layer->kind) {
    case kConv: {
      if (phase + 1 < phases(*layer)) return Conv<float>::gate_parts(*layer);
      const Division parts = Conv<float>::divided(*layer);
      return parts.down * parts.across;
    }
    case kDepthwise: return ExpandDepthwise<float>::tasks(*layer);
    case kInput: return input_parts(*layer);
    case kExcite: return Excite::parts(*layer, phase);
    default: return 1;
  }
}

int64_t scratch(const Layer* layer, int bf16) {
  switch (layer->kind) {
    case kConv: return bf16 ? Conv<Bf16>::scratch(*layer) : Conv<float>::scratch(*layer);
    case kDepthwise: return ExpandDepthwise<float>::scratch(*layer);
    case kExcite: return Excite::scratch(*layer);
    default: return 0;
  }
}

template <class T>
void run(const Call& call, int64_t at, void* own) {
  switch (call.layer->kind) {
    case kInput: return take_input<T>(call, at);
    case kPad: return pad<T>(call);
    case kConv: return call.phase + 1 < phases(*call.layer) ? Conv<T>::gate(call, at) : Conv<T>::task(call, at, own);
    case kDepthwise: return ExpandDepthwise<T>::task(call, at, own);
    case kExcite: return Excite::task(call, at, static_cast<float*>(own));
    case kScale: return scale<T>(call);
    case kMaxPool: return pool_windows<T, true>(call);
    case kShrink: return pool_windows<T, false>(call);
    case kMean: return average<T>(call);
    case kSum: return sum<T>(call);
    default: return;
  }
}

void task(const Call* call, int bf16, int64_t at, void* own) {
  if (bf16) {
    run<Bf16>(*call, at, own);
  } else {
    run<float>(*call, at, own);
  }
}

// The product at its best: everything in the first cache.
template <class T>
int64_t multiply_for(int64_t repeats) {
  constexpr long kInputs = 128;
  alignas(64) static T x[kRows * kInputs], weight[kInputs * kPair];
  alignas(64) float sums[kRows * kPair], bias[kPair] = {};
  const long nowhere = 0;
  const Window window{1, kInputs, &nowhere};
  for (int64_t i = 0; i < repeats; i++) product<kRows, 2>(x, kInputs, window, weight, bias, nullptr, sums, kPair);
  return repeats * kRows * kPair * kInputs;
}

int64_t limit(int bf16, int64_t repeats) { return bf16 ? multiply_for<Bf16>(repeats) : multiply_for<float>(repeats); }

}  // namespace

#if defined(__AVX512BF16__)
constexpr int kMultipliesBf16 = 1;
#else
constexpr int kMultipliesBf16 = 0;
#endif

extern const inference::Kernels inference_kernels;
const inference::Kernels inference_kernels = {packed, pack, tasks, scratch, task, limit, kMultipliesBf16};

}  // namespace TRISCALE_ISA
}  // namespace triscale
