// The inference engine's layers in one instruction set: compiled once for each, with TRISCALE_ISA as its name.

#include "inference/layer.h"

#include "interface.h"
#include "vectors.h"

using namespace triscale::inference;

#include "inference/halves.h"
#include "activations.h"
#include "inference/pack.h"
#include "inference/product.h"
#include "inference/tiles.h"
#include "inference/convolve.h"
#include "inference/maps.h"
#include "inference/depthwise.h"

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// Calls use(T{}) for the type of that precision's values.
template <class Use>
TRISCALE_INLINE auto with_type(int precision, Use use) {
#if defined(__AVX512FP16__)
  if (precision == kFp16) return use(Fp16{});
#endif
  return precision == kBf16 ? use(Bf16{}) : use(float{});
}

int64_t packed(const Layer* layer, int precision) {
  return with_type(precision, [&](auto value) -> int64_t {
    using T = decltype(value);
    switch (layer->kind) {
      case kConv: return Conv<T>::packed(*layer);
      case kDepthwise: return ExpandDepthwise<T>::packed(*layer);
      case kExcite: return Excite<T>::packed(*layer);
      default: return 0;
    }
  });
}

void pack(const Layer* layer, int precision, const float* values, void* to) {
  with_type(precision, [&](auto value) {
    using T = decltype(value);
    switch (layer->kind) {
      case kConv: return Conv<T>::pack(*layer, values, to);
      case kDepthwise: return ExpandDepthwise<T>::pack(*layer, values, to);
      case kExcite: return Excite<T>::pack(*layer, values, to);
      default: return;
    }
  });
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
    case kExcite: return Excite<float>::parts(*layer, phase);
    default: return 1;
  }
}

int64_t scratch(const Layer* layer, int precision) {
  return with_type(precision, [&](auto value) -> int64_t {
    using T = decltype(value);
    switch (layer->kind) {
      case kConv: return Conv<T>::scratch(*layer);
      case kDepthwise: return ExpandDepthwise<T>::scratch(*layer);
      case kExcite: return Excite<T>::scratch(*layer);
      default: return 0;
    }
  });
}

template <class T>
void run(const Call& call, int64_t at, void* own) {
  switch (call.layer->kind) {
    case kInput: return take_input<T>(call, at);
    case kPad: return pad<T>(call);
    case kConv: return call.phase + 1 < phases(*call.layer) ? Conv<T>::gate(call, at) : Conv<T>::task(call, at, own);
    case kDepthwise: return ExpandDepthwise<T>::task(call, at, own);
    case kExcite: return Excite<T>::task(call, at, static_cast<float*>(own));
    case kScale: return scale<T>(call);
    case kMaxPool: return pool_windows<T, true>(call);
    case kShrink: return pool_windows<T, false>(call);
    case kMean: return average<T>(call);
    case kSum: return sum<T>(call);
    default: return;
  }
}

void task(const Call* call, int precision, int64_t at, void* own) {
  with_type(precision, [&](auto value) { run<decltype(value)>(*call, at, own); });
}

void answer(int precision, const void* from, int64_t count, float* to) {
  with_type(precision, [&](auto value) {
    const auto* values = static_cast<const decltype(value)*>(from);
    each_vector(count, [&](long at, auto lanes) { store(to + at, load(values + at, lanes), lanes); });
  });
}

// The product at its best: everything in the first cache.
template <class T>
int64_t multiply_for(int64_t repeats) {
  constexpr long kInputs = 128;
  alignas(64) static T x[kPixelsAtOnce * kInputs], weight[kInputs * kPair];
  alignas(64) Sum<T> sums[kPixelsAtOnce * kPair];
  alignas(64) float bias[kPair] = {};
  const long nowhere = 0;
  const Window window{1, kInputs, &nowhere};
  const TileProduct<T> multiply(Tiles(kPixelsAtOnce), window);
  const Stream nothing{reinterpret_cast<uintptr_t>(weight), 0};
  for (int64_t i = 0; i < repeats; i++) multiply(kPixelsAtOnce, 2, x, kInputs, weight, bias, nullptr, sums, kPair, nothing);
  return repeats * kPixelsAtOnce * kPair * kInputs;
}

int64_t limit(int precision, int64_t repeats) {
  return with_type(precision, [&](auto value) { return multiply_for<decltype(value)>(repeats); });
}

// Whether a product of small whole numbers, which is exact, is right: of two taps, an odd number of pixels, a panel of either
// width.
template <class T>
bool multiplies(long inputs) {
  constexpr long kTaps = 2, kApart = 80, kOutputs = 48, kRuns = 27;
  alignas(64) T x[(kRuns + kTaps) * kApart], packed[kTaps * (kApart + 16) * kOutputs];
  alignas(64) float bias[kOutputs], weight[kTaps * kApart * kOutputs];
  auto small = [](long i) { return static_cast<float>(i * 7 % 5 - 2); };
  for (long i = 0; i < (kRuns + kTaps) * kApart; i++) put(x + i, small(i));
  for (long i = 0; i < kTaps * inputs * kOutputs; i++) weight[i] = small(i / 3);
  for (long i = 0; i < kOutputs; i++) bias[i] = small(i);
  const long offsets[kTaps] = {0, kApart};
  const Window window{kTaps, inputs, offsets};
  pack_panels(weight, kTaps, inputs, kOutputs, [&](long tap, long i) { return tap * inputs + i; }, packed);
  const Tiles tiles(kRuns);
  const TileProduct<T> multiply(tiles, window);
  for (long first = 0; first < kOutputs; first += kPair) {
    const long width = min_of(kPair, kOutputs - first);
    for (long tile = 0; tile < tiles.count; tile++) {
      alignas(64) Sum<T> y[kPixelsAtOnce * kPair];
      const T* panel = packed + first * kTaps * padded<T>(inputs);
      multiply(tiles.rows(tile), width / kLanes, x + tiles.first(tile) * kApart, kApart, panel, bias + first, nullptr, y, width, {reinterpret_cast<uintptr_t>(panel), 0});
      for (long i = 0; i < tiles.rows(tile) * width; i++) {
        float wanted = bias[first + i % width], found;
        for (long k = 0; k < kTaps * inputs; k++) {
          const long place = (tiles.first(tile) + i / width + k / inputs) * kApart + k % inputs;
          wanted += small(place) * weight[k * kOutputs + first + i % width];
        }
        store(&found, load(y + i, First(1)), First(1));
        if (found != wanted) return false;
      }
    }
  }
  return true;
}

bool sound() {
#if defined(__AVX512BF16__)
  return multiplies<Bf16>(40) && multiplies<Bf16>(64) && multiplies<Bf16>(79);  // even parts, whole tiles, beyond a pixel
#else
  return true;
#endif
}

}  // namespace

#if defined(__AVX512FP16__)
constexpr int kMultiplies = 1 << kFp32 | 1 << kBf16 | 1 << kFp16;
#elif defined(__AVX512BF16__)
constexpr int kMultiplies = 1 << kFp32 | 1 << kBf16;
#else
constexpr int kMultiplies = 1 << kFp32;
#endif

extern const inference::EngineKernels inference_kernels;
const inference::EngineKernels inference_kernels = {packed, pack, tasks, scratch, task, answer, limit, sound, kMultiplies};

}  // namespace TRISCALE_ISA
}  // namespace triscale
