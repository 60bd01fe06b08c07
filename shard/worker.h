#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "core/all_of.h"
#include "core/device_id.h"

namespace mgpu {

/// One device's thread: runs what it is given, one after another, in order. It computes with as many threads as the
/// one that made it, so that a CPU's sums do not depend on who computes them. What it allocates is its device's.
class Worker {
 public:
  /// A worker that has the only device needs no thread: it runs a task at once, in the caller's.
  enum class Runs : std::uint8_t { InCaller, InThread };
  /// Throws where the system gives no thread, or the GPU does not answer.
  Worker(const DeviceId& device, Runs runs);
  /// Waits for what was posted, and for what that posts here in turn.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Runs `task` when its turn comes. It must not throw. Throws, and forgets it, where there is no memory for it.
  void post(std::function<void()> task);

  /// Runs `work` in its turn; the future gives what it returns, throws what it throws.
  template <class Work>
  auto begin(Work&& work) {
    const auto task = std::make_shared<std::packaged_task<decltype(work())()>>(std::forward<Work>(work));
    auto result = task->get_future();
    post([task] { (*task)(); });
    return result;
  }

  /// The same, and waits for it.
  template <class Work>
  auto call(Work&& work) {
    return begin(std::forward<Work>(work)).get();
  }

 private:
  void serve(int threads, std::promise<void>& begun);

  DeviceId device_;
  std::mutex mutex_;
  std::condition_variable wakes_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

/// Work of several workers at the same time: see AllOf.
class Together {
 public:
  template <class Work>
  void begin(Worker& worker, Work&& work) {
    works_.add([&] { return worker.begin(std::forward<Work>(work)); });
  }

  /// Waits for all, then throws what the first one that failed threw.
  void finish() { works_.finish(); }

 private:
  AllOf works_;
};

}  // namespace mgpu
