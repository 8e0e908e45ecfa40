// Threads of the engine's own: they wait in a loop for a moment, since the next layer follows at once, and then sleep.

#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stdint.h>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace triscale {
namespace inference {

inline void breathe() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Team {
 public:
  // A task is called with its number and that of the thread, 0 being the one that asks.
  using Task = void (*)(void* context, int64_t task, int64_t thread);

  explicit Team(int64_t threads) : shares_(static_cast<size_t>(threads)) {
    try {
      for (int64_t i = 1; i < threads; i++) others_.emplace_back([this, i] { work(i); });
    } catch (...) {  // the system gives no more threads: those that run must end before what they run in
      end();
      throw;
    }
  }

  ~Team() { end(); }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // Returns when every task is done. One caller at a time. At most kMost tasks.
  void run(int64_t tasks, Task task, void* context) {
    if (others_.empty() || tasks <= 1) {
      for (int64_t i = 0; i < tasks; i++) task(context, i, 0);
      return;
    }
    task_ = task, context_ = context;
    done_.store(0, std::memory_order_relaxed);
    round_++;
    const int64_t of = static_cast<int64_t>(shares_.size());
    for (int64_t i = 0; i < of; i++) {
      shares_[i].tickets.store(round_ << 40 | static_cast<uint64_t>(tasks * (i + 1) / of) << 20 | static_cast<uint64_t>(tasks * i / of));
    }
    if (asleep_.load() > 0) {
      std::lock_guard<std::mutex> held(mutex_);
      wake_.notify_all();
    }
    help(0);
    for (long turn = 0; done_.load(std::memory_order_acquire) < tasks; turn++) {
      if (turn < kPatience) {
        breathe();
      } else {
        std::this_thread::yield();
      }
    }
  }

  // Keeps each thread but the one that asks on one core: thread i on the core `first` + i, counted round and round.
  // False where the system does not let it.
  bool pin(const int64_t* cores, int64_t count, int64_t first) {
    for (size_t i = 0; i < others_.size(); i++) {
      if (!keep(others_[i], cores[(first + static_cast<int64_t>(i) + 1) % count])) return false;
    }
    return true;
  }

  static constexpr int64_t kMost = (1 << 20) - 1;

 private:
  static constexpr long kPatience = 4000;

  void end() {
    {
      std::lock_guard<std::mutex> held(mutex_);
      ends_ = true;
    }
    wake_.notify_all();
    for (std::thread& other : others_) other.join();
  }

  static bool keep(std::thread& thread, int64_t core) {
#if defined(__linux__)
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(core) + 1);
    if (set == nullptr) return false;
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(core) + 1);
    CPU_ZERO_S(size, set);
    CPU_SET_S(static_cast<size_t>(core), size, set);
    const bool kept = pthread_setaffinity_np(thread.native_handle(), size, set) == 0;
    CPU_FREE(set);
    return kept;
#else
    (void)thread, (void)core;
    return false;
#endif
  }

  // A thread's share of a round: the round, where the share ends and the next of its tasks, in one word. Whoever takes one
  // knows that it is still of this round, and until it is done no other round begins.
  struct alignas(64) Share {
    std::atomic<uint64_t> tickets{0};
  };
  static bool open(uint64_t tickets) { return (tickets & kMost) < (tickets >> 20 & kMost); }

  bool any_open() const {
    for (const Share& share : shares_) {
      if (open(share.tickets.load())) return true;
    }
    return false;
  }

  // Does what is left of one's own share, so that a thread mostly finds what it left in its cache, and then of the others'
  // of the same round. What was done is told once: cores that are far apart take as long for a word as for a small task.
  bool help(int64_t thread) {
    const size_t of = shares_.size(), own = static_cast<size_t>(thread);
    const uint64_t round = shares_[own].tickets.load(std::memory_order_acquire) >> 40;
    int64_t did = 0;
    for (size_t i = 0; i < of; i++) {
      std::atomic<uint64_t>& share = shares_[(own + i) % of].tickets;
      uint64_t tickets = share.load(std::memory_order_acquire);
      while (open(tickets) && tickets >> 40 == round) {
        if (!share.compare_exchange_weak(tickets, tickets + 1, std::memory_order_acq_rel)) continue;
        task_(context_, static_cast<int64_t>(tickets & kMost), thread);
        did++;
        tickets = share.load(std::memory_order_acquire);
      }
    }
    if (did > 0) done_.fetch_add(did, std::memory_order_release);
    return did > 0;
  }

  void work(int64_t thread) {
    for (long turn = 0; !ends_.load(std::memory_order_relaxed); turn++) {
      if (help(thread)) {
        turn = 0;
      } else if (turn < kPatience) {
        breathe();
      } else {
        std::unique_lock<std::mutex> held(mutex_);
        asleep_++;
        wake_.wait(held, [this] { return ends_.load() || any_open(); });
        asleep_--;
        turn = 0;
      }
    }
  }

  std::vector<Share> shares_;
  std::atomic<int64_t> done_{0};
  std::atomic<int> asleep_{0};
  std::atomic<bool> ends_{false};
  uint64_t round_ = 0;
  Task task_ = nullptr;
  void* context_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> others_;
};

}  // namespace inference
}  // namespace triscale
