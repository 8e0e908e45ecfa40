// The C interface: picks the fastest instruction set that this processor has, and calls its kernels.

#include "interface.h"

#include "inference/layer.h"

#include <string.h>
#if defined(TRISCALE_X86)
#include <cpuid.h>
#endif
#if defined(TRISCALE_TILES) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace triscale {

namespace baseline {
extern const TrainingKernels kernels;
extern const inference::EngineKernels inference_kernels;
}
#if defined(TRISCALE_X86)
namespace avx2 {
extern const TrainingKernels kernels;
extern const inference::EngineKernels inference_kernels;
}
namespace avx512 {
extern const TrainingKernels kernels;
extern const inference::EngineKernels inference_kernels;
}
namespace avx512bf16 {
extern const TrainingKernels kernels;
extern const inference::EngineKernels inference_kernels;
}
#endif
#if defined(TRISCALE_FP16)
namespace avx512fp16 {
extern const TrainingKernels kernels;
extern const inference::EngineKernels inference_kernels;
}
#endif
#if defined(TRISCALE_TILES)
namespace amx {  // training has the kernels of avx512fp16: PyTorch multiplies by tiles
extern const inference::EngineKernels inference_kernels;
}
#endif

namespace {

struct Choice {
  const char* name;
  const TrainingKernels* kernels;
  const inference::EngineKernels* inference;
  bool here;
};

#if defined(TRISCALE_TILES)
// Whether the processor multiplies bf16 by tiles, and the operating system keeps them.
bool has_tiles() {
#if defined(TRISCALE_TILES_ANYWHERE)
  return true;  // for tests
#else
  unsigned a, b, c, d = 0;
  constexpr unsigned kBf16Tiles = 1u << 22, kTiles = 1u << 24, kKept = 3u << 17;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (kBf16Tiles | kTiles)) != (kBf16Tiles | kTiles)) return false;
  // Of the palette that is set up: eight tiles of 16 rows of 64 bytes, all of which a product takes.
  if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d) || b >> 16 < 8 || (b & 0xffff) < 64 || (c & 0xffff) < 16) return false;
  if (!__get_cpuid_count(0x1e, 0, &a, &b, &c, &d) || (b & 0xff) < 16 || (b >> 8 & 0xffff) < 64) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kKept) == kKept;
#endif
}

// Linux wants to be asked once for a process, before the first tile: it then has to keep more for each thread.
bool may_use_tiles() {
#if defined(TRISCALE_TILES_ANYWHERE)
  return true;
#elif defined(__linux__)
  constexpr long kAskPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
#else
  return false;
#endif
}
#else
bool may_use_tiles() { return false; }
#endif

// From the slowest to the fastest; `here` counts the operating system's part too (it must save the wide registers).
int list(Choice* choices) {
  int n = 0;
  choices[n++] = {"baseline", &baseline::kernels, &baseline::inference_kernels, true};
#if defined(TRISCALE_X86)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  choices[n++] = {"avx2", &avx2::kernels, &avx2::inference_kernels, avx2};
  choices[n++] = {"avx512", &avx512::kernels, &avx512::inference_kernels, avx512};
  // From here on the processor itself is asked: compilers differ in the names that they know.
  unsigned a = 0, b, c, d = 0;
  bool bf16 = avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 5 & 1;
  choices[n++] = {"avx512bf16", &avx512bf16::kernels, &avx512bf16::inference_kernels, bf16};
#endif
#if defined(TRISCALE_FP16)
  bool fp16 = bf16 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 23 & 1;
#if defined(TRISCALE_FP16_ANYWHERE)
  fp16 = bf16;  // for tests
#endif
  choices[n++] = {"avx512fp16", &avx512fp16::kernels, &avx512fp16::inference_kernels, fp16};
#elif defined(TRISCALE_X86)
  choices[n++] = {"avx512fp16", nullptr, nullptr, false};  // a compiler that does not know it
#endif
#if defined(TRISCALE_TILES)
  choices[n++] = {"amx", &avx512fp16::kernels, &amx::inference_kernels, fp16 && has_tiles()};
#elif defined(TRISCALE_X86)
  choices[n++] = {"amx", nullptr, nullptr, false};
#endif
  return n;
}

const TrainingKernels* active = nullptr;
const inference::EngineKernels* inferring = nullptr;

}  // namespace

const inference::EngineKernels* chosen_inference() { return inferring; }

}  // namespace triscale

using triscale::active;

#define EXPORT __attribute__((visibility("default")))

extern "C" {

// Takes the fastest instruction set that is here and not faster than the named one; any, where the name is empty.
// Returns its name, or null where no instruction set has the asked name.
EXPORT const char* triscale_choose(const char* most) {
  triscale::Choice choices[8];
  int n = triscale::list(choices), last = n - 1;
  if (most[0] != 0) {
    while (last >= 0 && strcmp(choices[last].name, most) != 0) last--;
    if (last < 0) return nullptr;
  }
  while (!choices[last].here) last--;
  // Tiles are used where the system lets them be and they multiply as they should; what is here without them is next.
  if (strcmp(choices[last].name, "amx") == 0 && !(triscale::may_use_tiles() && choices[last].inference->sound())) last--;
  active = choices[last].kernels, triscale::inferring = choices[last].inference;
  return choices[last].name;
}

EXPORT int triscale_depthwise(const triscale::DepthwiseShape* shape, int bf16, int threads, const void* x, const float* weight,
                       void* y) {
  return active->depthwise(shape, bf16, threads, x, weight, y);
}

EXPORT int triscale_depthwise_backward(const triscale::DepthwiseShape* shape, int bf16, int threads, const void* grad,
                                const void* x, const float* weight, void* grad_x, float* grad_weight) {
  return active->depthwise_backward(shape, bf16, threads, grad, x, weight, grad_x, grad_weight);
}

EXPORT int triscale_norm(int64_t rows, int64_t channels, int64_t activation, double epsilon, int bf16, int threads,
                  const void* x, const float* weight, const float* bias, void* y, float* statistics) {
  return active->norm(rows, channels, activation, epsilon, bf16, threads, x, weight, bias, y, statistics);
}

EXPORT int triscale_norm_backward(int64_t rows, int64_t channels, int64_t activation, int bf16, int threads, const void* grad,
                           const void* x, const float* weight, const float* bias, const float* statistics,
                           void* grad_x, float* grad_weight, float* grad_bias) {
  return active->norm_backward(rows, channels, activation, bf16, threads, grad, x, weight, bias, statistics, grad_x,
                               grad_weight, grad_bias);
}

EXPORT int triscale_pool(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x,
                  float* means) {
  return active->pool(images, pixels, channels, bf16, threads, x, means);
}

EXPORT int triscale_scale(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x,
                   const float* factors, const float* terms, void* y) {
  return active->scale(images, pixels, channels, bf16, threads, x, factors, terms, y);
}

EXPORT int triscale_dot(int64_t images, int64_t pixels, int64_t channels, int bf16, int threads, const void* x,
                 const void* grad, float* sums) {
  return active->dot(images, pixels, channels, bf16, threads, x, grad, sums);
}

EXPORT int triscale_pointwise(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads, const void* x,
                              const float* weight, void* y) {
  return active->pointwise(rows, inputs, outputs, bf16, threads, x, weight, y);
}

EXPORT int triscale_pointwise_backward(int64_t rows, int64_t inputs, int64_t outputs, int bf16, int threads,
                                       const void* grad, const void* x, const float* weight, void* grad_x,
                                       float* grad_weight) {
  return active->pointwise_backward(rows, inputs, outputs, bf16, threads, grad, x, weight, grad_x, grad_weight);
}

EXPORT int triscale_norm_depthwise(const triscale::DepthwiseShape* shape, int64_t activation, double epsilon, int bf16,
                                   int threads, const void* x, const float* weight, const float* bias,
                                   const float* taps, void* y, float* statistics) {
  return active->norm_depthwise(shape, activation, epsilon, bf16, threads, x, weight, bias, taps, y, statistics);
}

EXPORT int triscale_norm_depthwise_backward(const triscale::DepthwiseShape* shape, int64_t activation, int bf16, int threads,
                                            const void* grad, const void* x, const float* weight, const float* bias,
                                            const float* statistics, const float* taps, void* grad_x, float* grad_weight,
                                            float* grad_bias, float* grad_taps) {
  return active->norm_depthwise_backward(shape, activation, bf16, threads, grad, x, weight, bias, statistics, taps, grad_x,
                                         grad_weight, grad_bias, grad_taps);
}

EXPORT int triscale_norm_excite(const triscale::ExciteShape* shape, int64_t activation, double epsilon, int bf16, int threads,
                                const void* x, const float* weight, const float* bias, const float* reduce,
                                const float* reduce_bias, const float* expand, const float* expand_bias, void* y,
                                float* statistics, float* pooled, float* hidden, float* gate) {
  return active->norm_excite(shape, activation, epsilon, bf16, threads, x, weight, bias, reduce, reduce_bias, expand,
                             expand_bias, y, statistics, pooled, hidden, gate);
}

EXPORT int triscale_norm_excite_backward(const triscale::ExciteShape* shape, int64_t activation, int bf16, int threads,
                                         const void* grad, const void* x, const float* weight, const float* bias,
                                         const float* statistics, const float* hidden, const float* gate,
                                         const float* reduce, const float* expand, void* grad_x, float* grad_weight,
                                         float* grad_bias, float* grad_gate, float* grad_hidden) {
  return active->norm_excite_backward(shape, activation, bf16, threads, grad, x, weight, bias, statistics, hidden, gate,
                                      reduce, expand, grad_x, grad_weight, grad_bias, grad_gate, grad_hidden);
}
}
