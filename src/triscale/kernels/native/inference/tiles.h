// The product of bf16 by matrix tiles (AMX): up to 16 pixels × 32 inputs times 32 inputs × 16 outputs in one instruction,
// summed in single precision. Included by layers.cpp.
//
// Written as the instructions themselves: what compilers offer in their place does not say that memory is read, and names
// tiles by numbers anyway. Weights lie as they do for VDPBF16PS, in pairs of inputs, which is as tiles take them.

#pragma once

#if defined(TRISCALE_TILES)

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// What the tiles are: sums of two vectors of outputs, twice; pixels; weights.
constexpr int kSums = 0, kOtherSums = 2, kPixels = 4, kWeights = 6;

// Layout of LDTILECFG's memory, palette 1.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, unused[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, long rows_, long bytes_) {
    rows[tile] = static_cast<uint8_t>(rows_), bytes[tile] = static_cast<uint16_t>(bytes_);
  }
};
static_assert(sizeof(TileShapes) == 64, "as the processor reads it");

TRISCALE_INLINE void set_up(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
// The state costs at every change of threads while it is there.
TRISCALE_INLINE void give_up_tiles() { asm volatile("tilerelease" : : : "memory"); }

// Rows of a tile, so many bytes from one to the next.
template <int TILE>
TRISCALE_INLINE void load_tile(const void* from, long apart) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(apart), "i"(TILE) : "memory");
}
template <int TILE>
TRISCALE_INLINE void store_tile(void* to, long apart) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(apart), "i"(TILE) : "memory");
}
template <int SUMS, int PIXELS, int WEIGHTS>
TRISCALE_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(PIXELS), "i"(WEIGHTS));
}

template <int TILE>
TRISCALE_INLINE void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(TILE));
}

// A panel's weights for one part of the inputs, times those inputs, added to the sums.
template <int SUMS, int VECTORS>
TRISCALE_INLINE void add_part(const Bf16* x, long apart, const Bf16* weight) {
  constexpr long kBetween = VECTORS * kLanes * 2 * sizeof(Bf16);
  constexpr int kOwn = SUMS == kSums ? 0 : 1;
  load_tile<kPixels + kOwn>(x, apart);
  load_tile<kWeights>(weight, kBetween);
  multiply_tiles<SUMS, kPixels + kOwn, kWeights>();
  if (VECTORS == 2) {
    load_tile<kWeights + 1>(weight + kPair, kBetween);
    multiply_tiles<SUMS + 1, kPixels + kOwn, kWeights + 1>();
  }
}

// y (rows, VECTORS vectors of floats) = bias + the window of as many pixels as the tiles have rows, times a panel. A product
// takes some fifty cycles until its sums can be added to, and sixteen until the next can begin: of many parts every other
// one is summed by itself, in `others`. Returns whether there are any of those.
template <int VECTORS>
__attribute__((noinline)) bool tile_product(const Bf16* x, long apart, const Window& window, const Depths& parts, const Bf16* weight,
                                            const float* bias, float* y, float* others) {
  constexpr long kBetween = VECTORS * kLanes * sizeof(float), kSplit = 4;
  const long size = parts.depth * VECTORS * kLanes, bytes = apart * static_cast<long>(sizeof(Bf16));
  const bool split = window.taps * parts.count >= kSplit;
  load_tile<kSums>(bias, 0);
  if (VECTORS == 2) load_tile<kSums + 1>(bias + kLanes, 0);
  if (split) {
    clear_tile<kOtherSums>();
    if (VECTORS == 2) clear_tile<kOtherSums + 1>();
  }
  bool other = false;
  for (long tap = 0; tap < window.taps; tap++) {
    const Bf16* at = x + window.offsets[tap];
    for (long part = 0; part < parts.count; part++, at += parts.depth, weight += size, other = split && !other) {
      if (other) {
        add_part<kOtherSums, VECTORS>(at, bytes, weight);
      } else {
        add_part<kSums, VECTORS>(at, bytes, weight);
      }
    }
  }
  store_tile<kSums>(y, kBetween);
  if (VECTORS == 2) store_tile<kSums + 1>(y + kLanes, kBetween);
  if (!split) return false;
  store_tile<kOtherSums>(others, kBetween);
  if (VECTORS == 2) store_tile<kOtherSums + 1>(others + kLanes, kBetween);
  return true;
}

// Sets the thread's tiles up, and gives them up again: one at a time for a thread.
template <>
class TileProduct<Bf16> {
 public:
  TileProduct(const Tiles& tiles, const Window& window) : window_(window), parts_(window.inputs) {
    if (window.inputs == 0) return;
    TileShapes shapes;
    for (int i = 0; i < 2; i++) {
      shapes.set(kSums + i, tiles.most(), 64), shapes.set(kOtherSums + i, tiles.most(), 64);
      shapes.set(kPixels + i, tiles.most(), 2 * parts_.depth), shapes.set(kWeights + i, parts_.depth / 2, 64);
    }
    set_up(shapes);
  }
  ~TileProduct() {
    if (window_.inputs != 0) give_up_tiles();
  }
  TileProduct(const TileProduct&) = delete;
  TileProduct& operator=(const TileProduct&) = delete;

  // As `product`, of so many rows and vectors of outputs; sums become fp16 on the way out.
  TRISCALE_INLINE void operator()(long rows, long vectors, const Bf16* x, long apart, const Bf16* weight, const float* bias,
                                  const Limits* limits, Fp16* y, long y_apart, Stream) const {
    alignas(64) float sums[kPixelsAtOnce * kPair], others[kPixelsAtOnce * kPair];
    const bool split = (vectors == 2 ? tile_product<2> : tile_product<1>)(x, apart, window_, parts_, weight, bias, sums, others);
    if (split) {
      for (long i = 0; i < rows * vectors * kLanes; i += kLanes) store(sums + i, load(sums + i, Full{}) + load(others + i, Full{}), Full{});
    }
    if (vectors == 2) {
      put_down<Half32>(sums, rows, limits, y, y_apart, [](const float* p) { return halved(load(p, Full{}), load(p + kLanes, Full{})); });
    } else {
      put_down<Half16>(sums, rows, limits, y, y_apart, [](const float* p) { return halved(load(p, Full{})); });
    }
  }

 private:
  template <class V, class Halve>
  static TRISCALE_INLINE void put_down(const float* sums, long rows, const Limits* limits, Fp16* y, long y_apart, Halve halve) {
    constexpr long kValues = sizeof(V) / sizeof(Fp16);
    if (limits == nullptr) {
      for (long r = 0; r < rows; r++) store(y + r * y_apart, halve(sums + r * kValues), Full{});
      return;
    }
    const V low = Get<V>::all_of(limits->low), high = Get<V>::all_of(limits->high);
    for (long r = 0; r < rows; r++) store(y + r * y_apart, cut(halve(sums + r * kValues), low, high), Full{});
  }

  const Window& window_;
  const Depths parts_;
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale

#endif
