// Matrix tiles (AMX) for processors that have none: the instructions of tiles.h trap there, and are carried out here, as
// Intel's manual describes them (Instruction Set Extensions Programming Reference, chapter 3). What a processor would
// refuse ends the process. Linked into the kernels by a test; with TILES=wrong products are wrong.

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

namespace {

constexpr int kTiles = 8, kRows = 16, kBytes = 64;

struct State {
  bool there = false;
  int rows[kTiles] = {}, bytes[kTiles] = {};
  alignas(64) uint8_t values[kTiles][kRows][kBytes] = {};
};
thread_local State state;
bool wrong = false;

[[noreturn]] void refuse(const char* why) {
  fprintf(stderr, "tiles: %s\n", why);
  abort();
}

// Of an instruction: VEX.128.pp.0F38.W0 and its operands.
struct Instruction {
  int prefix, opcode, mode, reg, rm, other;  // reg: ModRM.reg, other: VEX.vvvv
  uint64_t address, apart;
  long size;
};

uint64_t value_of(const greg_t* registers, int number) {
  // As instructions number them; see <sys/ucontext.h>.
  static const int places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<uint64_t>(registers[places[number]]);
}

template <class T>
T read(const uint8_t* at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

// False for what is none of those of tiles.
bool decode(const greg_t* registers, Instruction& out) {
  const uint8_t* at = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84) != 0) return false;
  const int high_reg = ~at[1] >> 7 & 1, high_index = ~at[1] >> 6 & 1, high_base = ~at[1] >> 5 & 1;
  out.prefix = at[2] & 3, out.other = ~at[2] >> 3 & 15, out.opcode = at[3];
  const uint8_t mod_rm = at[4];
  out.mode = mod_rm >> 6, out.reg = (mod_rm >> 3 & 7) + 8 * high_reg, out.rm = (mod_rm & 7) + 8 * high_base;
  out.address = out.apart = 0;
  const uint8_t* next = at + 5;
  if (out.mode != 3) {
    bool relative = false;
    if ((mod_rm & 7) == 4) {
      const uint8_t sib = *next++;
      const int index = (sib >> 3 & 7) + 8 * high_index, base = (sib & 7) + 8 * high_base;
      if (index != 4) out.apart = value_of(registers, index) << (sib >> 6);
      if ((sib & 7) == 5 && out.mode == 0) {
        out.address = static_cast<uint64_t>(static_cast<int64_t>(read<int32_t>(next))), next += 4;
      } else {
        out.address = value_of(registers, base);
      }
    } else if ((mod_rm & 7) == 5 && out.mode == 0) {
      out.address = static_cast<uint64_t>(static_cast<int64_t>(read<int32_t>(next))), next += 4, relative = true;
    } else {
      out.address = value_of(registers, out.rm);
    }
    if (out.mode == 1) out.address += static_cast<uint64_t>(static_cast<int64_t>(static_cast<int8_t>(*next++)));
    if (out.mode == 2) out.address += static_cast<uint64_t>(static_cast<int64_t>(read<int32_t>(next))), next += 4;
    if (relative) out.address += reinterpret_cast<uint64_t>(next);
  }
  out.size = next - at;
  return true;
}

void set_up(const uint8_t* from) {
  state = State();
  if (from[0] == 0) return;
  if (from[0] != 1) refuse("a palette that there is none of");
  for (int i = 2; i < 16; i++) {
    if (from[i] != 0) refuse("reserved bytes that are not 0");
  }
  for (int tile = 0; tile < 16; tile++) {
    const int bytes = read<uint16_t>(from + 16 + 2 * tile), rows = from[48 + tile];
    if (bytes > kBytes || rows > kRows || (bytes == 0) != (rows == 0)) refuse("a shape that no tile has");
    if (tile >= kTiles && bytes != 0) refuse("a tile that there is not");
    if (tile < kTiles) state.bytes[tile] = bytes, state.rows[tile] = rows;
  }
  if (from[1] != 0) refuse("a row to start with");
  state.there = true;
}

void use(int tile) {
  if (!state.there) refuse("no tiles are set up");
  if (tile >= kTiles || state.rows[tile] == 0) refuse("a tile without a shape");
}

void move(const Instruction& it, bool load) {
  use(it.reg);
  for (int row = 0; row < kRows; row++) {
    uint8_t* memory = reinterpret_cast<uint8_t*>(it.address + static_cast<uint64_t>(row) * it.apart);
    uint8_t* values = state.values[it.reg][row];
    const size_t bytes = row < state.rows[it.reg] ? static_cast<size_t>(state.bytes[it.reg]) : 0;
    if (load) {
      memset(values, 0, kBytes);
      memcpy(values, memory, bytes);
    } else {
      memcpy(memory, values, bytes);
    }
  }
}

float widened(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

void multiply(int to, int left, int right) {
  use(to), use(left), use(right);
  if (to == left || to == right || left == right) refuse("the same tile twice");
  const int depth = state.bytes[left] / 4, outputs = state.bytes[to] / 4;
  if (state.bytes[left] % 4 || state.bytes[to] % 4 || state.bytes[right] != state.bytes[to] || state.rows[right] != depth ||
      state.rows[left] != state.rows[to]) {
    refuse("shapes that do not fit together");
  }
  for (int m = 0; m < state.rows[to]; m++) {
    for (int n = 0; n < outputs; n++) {
      float even = 0, odd = 0, sum;
      for (int k = 0; k < depth; k++) {
        const uint8_t *a = state.values[left][m] + 4 * k, *b = state.values[right][k] + 4 * n;
        even += widened(read<uint16_t>(a)) * widened(read<uint16_t>(b));
        odd += widened(read<uint16_t>(a + 2)) * widened(read<uint16_t>(b + 2));
      }
      memcpy(&sum, state.values[to][m] + 4 * n, sizeof sum);
      sum += wrong ? even : even + odd;
      memcpy(state.values[to][m] + 4 * n, &sum, sizeof sum);
    }
  }
}

bool carry_out(const Instruction& it) {
  enum { kNone, k66, kF3, kF2 };
  if (it.opcode == 0x49 && it.prefix == kNone && it.mode != 3) return set_up(reinterpret_cast<const uint8_t*>(it.address)), true;
  if (it.opcode == 0x49 && it.prefix == kNone && it.reg == 0 && it.rm == 0) return state = State(), true;
  if (it.opcode == 0x49 && it.prefix == kF2 && it.mode == 3 && it.rm == 0) {
    use(it.reg);
    memset(state.values[it.reg], 0, sizeof state.values[it.reg]);
    return true;
  }
  if (it.opcode == 0x4b && it.prefix == kF2 && it.mode != 3) return move(it, true), true;
  if (it.opcode == 0x4b && it.prefix == kF3 && it.mode != 3) return move(it, false), true;
  if (it.opcode == 0x5c && it.prefix == kF3 && it.mode == 3) return multiply(it.reg, it.rm, it.other), true;
  return false;
}

void handle(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Instruction it{};
  if (!decode(registers, it) || !carry_out(it)) {
    const uint8_t* at = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
    fprintf(stderr, "tiles: none of their instructions:");
    for (int i = 0; i < 10; i++) fprintf(stderr, " %02x", at[i]);
    fprintf(stderr, "\n");
    signal(SIGILL, SIG_DFL);  // the same again, and the end
    return;
  }
  registers[REG_RIP] += it.size;
}

__attribute__((constructor)) void install() {
  const char* asked = getenv("TILES");
  wrong = asked != nullptr && strcmp(asked, "wrong") == 0;
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &action, nullptr);
}

}  // namespace
