// Carries a plan out: memory, threads, and who computes what.
//
// Fewer images than threads: the threads share every layer. Otherwise each thread takes images for itself, from the first
// layer to the last, in memory of its own.

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "inference/check.h"
#include "inference/layer.h"
#include "inference/team.h"
#include "interface.h"

namespace triscale {
namespace inference {
namespace {

// Memory in whole cache lines, empty at first. Throws std::bad_alloc.
class Memory {
 public:
  Memory() = default;
  explicit Memory(int64_t bytes) : begin_(static_cast<char*>(aligned_alloc(64, static_cast<size_t>((bytes + 127) / 64 * 64)))) {
    if (!begin_) throw std::bad_alloc();
    memset(begin_.get(), 0, static_cast<size_t>(bytes));
  }
  char* get() const { return begin_.get(); }

 private:
  struct Free {
    void operator()(char* p) const { free(p); }
  };
  std::unique_ptr<char, Free> begin_;
};

struct Plan {
  std::vector<Layer> layers;
  std::vector<int64_t> places, sizes;  // of packed weights; of each buffer, in bytes an image
  Memory packed;
  const EngineKernels* kernels = nullptr;
  int precision = kFp32;
  int64_t scratch = 0, inputs = 0, classes = 0;

  int64_t value() const { return precision == kFp32 ? 4 : 2; }

  // Whether the last layer's sums are the logits: as values of bf16 they would be rounded to eight bits, and many would be equal.
  bool answers_in_sums() const { return precision == kBf16 && layers.back().kind == kConv && layers.back().residual < 0; }
};

// What one thread computes in.
struct Workspace {
  std::vector<Memory> buffers;
  Memory scratch;

  Workspace(const Plan& plan, bool maps) : scratch(plan.scratch) {
    if (!maps) return;
    for (int64_t size : plan.sizes) buffers.emplace_back(size);
  }
};

// One image at a time through the plan, by a team or by one thread.
class Pass {
 public:
  Pass(const Plan& plan, Workspace& maps) : plan_(plan), maps_(maps) {}

  // nanoseconds: each layer's, by the clock of the thread that asks, if they are wanted.
  void run(const float* x, float* y, Team* team, std::vector<std::unique_ptr<Workspace>>* workspaces, int64_t* nanoseconds = nullptr) {
    const bool in_sums = plan_.answers_in_sums();
    Clock::time_point before = nanoseconds != nullptr ? Clock::now() : Clock::time_point();
    for (size_t i = 0; i < plan_.layers.size(); i++) {
      const Layer& layer = plan_.layers[i];
      call_ = {&layer, plan_.packed.get() + plan_.places[i], 0, x, at(layer.input), at(layer.residual),
               reinterpret_cast<const float*>(at(layer.gate)), reinterpret_cast<float*>(at(layer.sums)), at(layer.output), nullptr};
      if (in_sums && i + 1 == plan_.layers.size()) call_.logits = reinterpret_cast<float*>(at(layer.output));
      workspaces_ = workspaces;
      clear_behind(layer);
      for (call_.phase = 0; call_.phase < phases(layer); call_.phase++) {
        const int64_t tasks = plan_.kernels->tasks(&layer, call_.phase);
        if (team == nullptr) {
          for (int64_t task = 0; task < tasks; task++) plan_.kernels->task(&call_, plan_.precision, task, maps_.scratch.get());
        } else {
          team->run(tasks, [](void* self, int64_t task, int64_t thread) { static_cast<Pass*>(self)->share(task, thread); }, this);
        }
      }
      if (nanoseconds == nullptr) continue;
      const Clock::time_point now = Clock::now();
      nanoseconds[i] = std::chrono::duration_cast<std::chrono::nanoseconds>(now - before).count();
      before = now;
    }
    plan_.kernels->answer(in_sums ? kFp32 : plan_.precision, at(plan_.layers.back().output), plan_.classes, y);
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Products look a few values beyond the last pixel of a map, at weights that are 0: what lies there must be a number, and
  // not another image's.
  void clear_behind(const Layer& layer) const {
    if (!leaves_map(layer)) return;
    memset(at(layer.output) + (values_out(layer) - kAlignment) * plan_.value(), 0, static_cast<size_t>(kAlignment * plan_.value()));
  }

  char* at(int64_t buffer) const { return buffer < 0 ? nullptr : maps_.buffers[static_cast<size_t>(buffer)].get(); }

  void share(int64_t task, int64_t thread) {
    plan_.kernels->task(&call_, plan_.precision, task, (*workspaces_)[static_cast<size_t>(thread)]->scratch.get());
  }

  const Plan& plan_;
  Workspace& maps_;
  Call call_{};
  std::vector<std::unique_ptr<Workspace>>* workspaces_ = nullptr;
};

// A team with its memory: one caller at a time.
class Stream {
 public:
  Stream(const Plan& plan, int64_t threads) : plan_(plan), team_(threads) {
    for (int64_t i = 0; i < threads; i++) workspaces_.push_back(std::make_unique<Workspace>(plan, i == 0));
  }

  // Throws std::bad_alloc before anything is computed.
  void run(const float* x, int64_t images, float* y) {
    if (threads() > 1 && images < threads()) return share(x, images, y, nullptr);
    for (auto& workspace : workspaces_) {
      if (workspace->buffers.empty()) workspace = std::make_unique<Workspace>(plan_, true);
    }
    x_ = x, y_ = y;
    for (int64_t done = 0; done < images; done += Team::kMost) {
      first_ = done;
      const int64_t now = images - done < Team::kMost ? images - done : Team::kMost;
      team_.run(now, [](void* self, int64_t task, int64_t thread) { static_cast<Stream*>(self)->alone(task, thread); }, this);
    }
  }

  // The threads share each layer, however many images there are. nanoseconds: (images, layers), or null.
  void share(const float* x, int64_t images, float* y, int64_t* nanoseconds) {
    for (int64_t i = 0; i < images; i++, x += plan_.inputs, y += plan_.classes) {
      Pass(plan_, *workspaces_[0]).run(x, y, &team_, &workspaces_, nanoseconds);
      if (nanoseconds != nullptr) nanoseconds += plan_.layers.size();
    }
  }

  int64_t threads() const { return static_cast<int64_t>(workspaces_.size()); }

  bool pin(const int64_t* cores, int64_t count, int64_t first) { return team_.pin(cores, count, first); }

 private:
  void alone(int64_t task, int64_t thread) {
    const int64_t image = first_ + task;
    Pass(plan_, *workspaces_[static_cast<size_t>(thread)]).run(x_ + image * plan_.inputs, y_ + image * plan_.classes, nullptr, nullptr);
  }

  const Plan& plan_;
  Team team_;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
  const float* x_ = nullptr;
  float* y_ = nullptr;
  int64_t first_ = 0;
};

class Engine {
 public:
  Engine(Plan plan, int64_t threads, int64_t streams) : plan_(std::move(plan)) {
    for (int64_t i = 0; i < streams; i++) {
      streams_.push_back(std::make_unique<Stream>(plan_, threads));
      free_.push_back(streams_.back().get());
    }
  }

  int run(const float* x, int64_t images, float* y) {
    Stream* stream = take();
    int result = 0;
    try {
      stream->run(x, images, y);
    } catch (const std::bad_alloc&) {
      result = -1;
    }
    give(stream);
    return result;
  }

  // One stream's threads after another's, the callers' places left free.
  bool pin(const int64_t* cores, int64_t count) {
    int64_t first = 0;
    for (auto& stream : streams_) {
      if (!stream->pin(cores, count, first)) return false;
      first += stream->threads();
    }
    return true;
  }

  void profile(const float* x, int64_t images, float* y, int64_t* nanoseconds) {
    Stream* stream = take();
    stream->share(x, images, y, nanoseconds);
    give(stream);
  }

 private:
  Stream* take() {
    std::unique_lock<std::mutex> held(mutex_);
    freed_.wait(held, [this] { return !free_.empty(); });
    Stream* stream = free_.back();
    free_.pop_back();
    return stream;
  }

  void give(Stream* stream) {
    std::lock_guard<std::mutex> held(mutex_);
    free_.push_back(stream);
    freed_.notify_one();
  }

  const Plan plan_;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<Stream*> free_;
};

// Reads and packs; false with a message where the plan is not sound. Throws std::bad_alloc.
bool read_plan(Plan& plan, const int64_t* rows, int64_t layers, int64_t buffers, const float* values, int64_t count, char* error,
               int64_t error_size) {
  Checker checker(buffers, count, error, error_size);
  plan.sizes.assign(static_cast<size_t>(buffers), 0);
  int64_t size = 0;
  for (int64_t i = 0; i < layers; i++) {
    Layer layer{};
    memcpy(&layer, rows + i * kFields, kFields * sizeof(int64_t));
    if (!checker.check(layer, i)) return false;
    if ((i == 0) != (layer.kind == kInput)) return checker.refuse("the network's input must come first, and once");
    int64_t& needed = plan.sizes[static_cast<size_t>(layer.output)];
    const int64_t bytes = values_out(layer) * (leaves_map(layer) ? plan.value() : 4);
    needed = needed > bytes ? needed : bytes;
    if (layer.kind == kDepthwise && layer.sums >= 0) {
      int64_t& sums = plan.sizes[static_cast<size_t>(layer.sums)];
      const int64_t wanted = bands(layer.out_height) * lie(layer.channels) * 4;
      sums = sums > wanted ? sums : wanted;
    }
    if (plan.kernels->tasks(&layer, 0) > Team::kMost) return checker.refuse("a map of too many values");
    plan.places.push_back(size);
    size += (plan.kernels->packed(&layer, plan.precision) + 63) / 64 * 64;
    const int64_t scratch = plan.kernels->scratch(&layer, plan.precision);
    plan.scratch = plan.scratch > scratch ? plan.scratch : scratch;
    plan.layers.push_back(layer);
  }
  const Layer& first = plan.layers.front();
  const Held& last = checker.held(plan.layers.back().output);
  if (last.what != Held::kMap || last.height * last.width != 1) return checker.refuse("the last layer leaves no logits");
  plan.inputs = first.channels * first.pixels(), plan.classes = last.channels;
  if (plan.answers_in_sums()) {
    int64_t& needed = plan.sizes[static_cast<size_t>(plan.layers.back().output)];
    const int64_t bytes = values_out(plan.layers.back()) * 4;
    needed = needed > bytes ? needed : bytes;
  }
  plan.packed = Memory(size);
  for (size_t i = 0; i < plan.layers.size(); i++) plan.kernels->pack(&plan.layers[i], plan.precision, values, plan.packed.get() + plan.places[i]);
  return true;
}

}  // namespace
}  // namespace inference

const inference::EngineKernels* chosen_inference();
}  // namespace triscale

#define EXPORT __attribute__((visibility("default")))

using namespace triscale::inference;

extern "C" {

// A bit for each precision, in the order fp32, bf16, fp16, that the instruction set multiplies.
EXPORT int triscale_engine_multiplies() { return triscale::chosen_inference()->multiplies; }

// Multiplies and adds as fast as one core can, from the first cache, and returns how often: what an engine is measured by.
EXPORT int64_t triscale_engine_limit(int64_t precision, int64_t repeats) {
  return triscale::chosen_inference()->limit(static_cast<int>(precision), repeats);
}

// An engine for a plan, (layers, kFields) with its values, or null and why not.
EXPORT void* triscale_engine_create(const int64_t* rows, int64_t layers, int64_t buffers, const float* values, int64_t count,
                                    int64_t precision, int64_t threads, int64_t streams, char* error, int64_t error_size) {
  try {
    Plan plan;
    plan.kernels = triscale::chosen_inference(), plan.precision = static_cast<int>(precision);
    const bool there = precision >= kFp32 && precision <= kFp16 && plan.kernels->multiplies >> precision & 1;
    const char* wrong = !there                                                              ? "this instruction set has no such precision"
                        : layers < 1 || layers > 1 << 20 || buffers < 1 || buffers > 1 << 16 ? "a plan of no layers, or of too many"
                        : threads < 1 || threads > 1024 || streams < 1 || streams > 1024 ? "from 1 to 1,024 threads and streams are possible"
                                                                                         : nullptr;
    if (wrong != nullptr) {
      snprintf(error, static_cast<size_t>(error_size), "%s", wrong);
      return nullptr;
    }
    if (!read_plan(plan, rows, layers, buffers, values, count, error, error_size)) return nullptr;
    return new Engine(std::move(plan), threads, streams);
  } catch (const std::exception&) {  // no memory, or no more threads
    snprintf(error, static_cast<size_t>(error_size), "not enough memory, or no more threads");
    return nullptr;
  }
}

// logits, (images, classes), of x, (images, channels, height, width): 0, or -1 where there was no memory.
EXPORT int triscale_engine_run(void* engine, const float* x, int64_t images, float* y) {
  return static_cast<Engine*>(engine)->run(x, images, y);
}

// The same logits, one image after another, with the nanoseconds of each layer, (images, layers).
EXPORT void triscale_engine_profile(void* engine, const float* x, int64_t images, float* y, int64_t* nanoseconds) {
  static_cast<Engine*>(engine)->profile(x, images, y, nanoseconds);
}

// Keeps the engine's own threads on one core each of those named, before it runs: 0, or -1 where the system refuses.
EXPORT int triscale_engine_pin(void* engine, const int64_t* cores, int64_t count) {
  return static_cast<Engine*>(engine)->pin(cores, count) ? 0 : -1;
}

EXPORT void triscale_engine_destroy(void* engine) { delete static_cast<Engine*>(engine); }

}  // extern "C"
