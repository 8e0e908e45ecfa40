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

// What the tiles are: sums and pixels twice, of the tiles of pixels with one row less and with one more, so that nothing is
// set up anew between them; and weights.
constexpr int kSums = 0, kTallSums = 2, kPixels = 4, kTallPixels = 5, kWeights = 6;

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

// y (rows, VECTORS vectors of floats) = bias + the window of as many pixels as the tiles have rows, times a panel.
template <int SUMS, int PIXELS, int VECTORS>
__attribute__((noinline)) void tile_product(const Bf16* x, long apart, const Window& window, const Depths& parts, const Bf16* weight,
                                            const float* bias, float* y) {
  constexpr long kLine = kLanes * sizeof(float), kBetween = VECTORS * kLine;
  load_tile<SUMS>(bias, 0);
  if (VECTORS == 2) load_tile<SUMS + 1>(bias + kLanes, 0);
  for (long tap = 0; tap < window.taps; tap++) {
    const Bf16* at = x + window.offsets[tap];
    for (long part = 0; part < parts.count; part++) {
      load_tile<PIXELS>(at, apart * static_cast<long>(sizeof(Bf16)));
      load_tile<kWeights>(weight, kBetween);
      multiply_tiles<SUMS, PIXELS, kWeights>();
      if (VECTORS == 2) {
        load_tile<kWeights + 1>(weight + kPair, kBetween);
        multiply_tiles<SUMS + 1, PIXELS, kWeights + 1>();
      }
      at += parts.depth, weight += parts.depth * VECTORS * kLanes;
    }
  }
  store_tile<SUMS>(y, kBetween);
  if (VECTORS == 2) store_tile<SUMS + 1>(y + kLanes, kBetween);
}

// Sets the thread's tiles up, and gives them up again: one at a time for a thread.
template <>
class TileProduct<Bf16> {
 public:
  TileProduct(const Tiles& tiles, long vectors, const Window& window)
      : fewest_(tiles.fewest()), vectors_(vectors), window_(window), parts_(window.inputs) {
    const long depth = parts_.depth, most = tiles.pixels % tiles.count == 0 ? fewest_ : fewest_ + 1;
    TileShapes shapes;
    for (int v = 0; v < 2; v++) {
      shapes.set(kSums + v, fewest_, 64), shapes.set(kTallSums + v, most, 64);
      shapes.set(kWeights + v, depth / 2, 64);
    }
    shapes.set(kPixels, fewest_, 2 * depth), shapes.set(kTallPixels, most, 2 * depth);
    set_up(shapes);
  }
  ~TileProduct() { give_up_tiles(); }
  TileProduct(const TileProduct&) = delete;
  TileProduct& operator=(const TileProduct&) = delete;

  // As `product`, of so many rows; sums become fp16 on the way out.
  TRISCALE_INLINE void operator()(long rows, const Bf16* x, long apart, const Bf16* weight, const float* bias, const Limits* limits,
                                  Fp16* y, long y_apart) const {
    alignas(64) float sums[kRows * kPair];
    const bool tall = rows != fewest_;
    if (vectors_ == 2) {
      (tall ? tile_product<kTallSums, kTallPixels, 2> : tile_product<kSums, kPixels, 2>)(x, apart, window_, parts_, weight, bias, sums);
      put_down<Half32>(sums, rows, limits, y, y_apart, [](const float* p) { return halved(load(p, Full{}), load(p + kLanes, Full{})); });
    } else {
      (tall ? tile_product<kTallSums, kTallPixels, 1> : tile_product<kSums, kPixels, 1>)(x, apart, window_, parts_, weight, bias, sums);
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

  const long fewest_, vectors_;
  const Window& window_;
  const Depths parts_;
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale

#endif
