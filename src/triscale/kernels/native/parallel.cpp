// Threads: PyTorch's own, so that two pools never fight for the same cores.

#include <atomic>
#include <stdint.h>
#include <thread>
#include <vector>

#include "interface.h"

namespace triscale {
namespace {

// How GCC's and Clang's OpenMP runtimes start a team. Python hands in the address of the runtime that PyTorch has
// loaded: linked against, it could be a second copy of the library, with threads of its own that spin beside the first's.
using StartTeam = void (*)(void (*)(void*), void*, unsigned, unsigned);
StartTeam start_team = nullptr;

struct Work {
  std::atomic<int64_t> next{0};
  int64_t tasks;
  void (*task)(void*, int64_t);
  void* context;
};

void take(void* pointer) {
  Work& work = *static_cast<Work*>(pointer);
  for (int64_t i; (i = work.next.fetch_add(1, std::memory_order_relaxed)) < work.tasks;) work.task(work.context, i);
}

}  // namespace

void parallel(int64_t tasks, int threads, void (*task)(void*, int64_t), void* context) {
  int64_t used = threads < tasks ? threads : tasks;
  if (used <= 1) {
    for (int64_t i = 0; i < tasks; i++) task(context, i);
    return;
  }
  Work work;
  work.tasks = tasks, work.task = task, work.context = context;
  if (start_team != nullptr) {
    start_team(take, &work, static_cast<unsigned>(used), 0);
    return;
  }
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < used; i++) others.emplace_back(take, &work);
  } catch (...) {  // the system gives no more threads: those that run and this one do the rest
  }
  take(&work);
  for (std::thread& other : others) other.join();
}

}  // namespace triscale

extern "C" __attribute__((visibility("default"))) void triscale_use_team(void* function) { triscale::start_team = reinterpret_cast<triscale::StartTeam>(function); }
