#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

namespace mgpu {

/// Deals runs to the threads that sample them, in order: the next one as soon as the passes of those being sampled
/// leave a device without work.
class RunQueue {
 public:
  /// `passes`: those that each run has on their way at once. `enough`: so many keep every device at work.
  RunQueue(std::vector<std::size_t> passes, std::size_t enough) : passes_(std::move(passes)), enough_(enough) {}

  /// A run that is being sampled, until it goes.
  class Slot {
   public:
    Slot(RunQueue& queue, std::size_t run) : queue_(queue), run_(run) {}
    ~Slot() { queue_.end(run_); }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

    std::size_t run() const { return run_; }

   private:
    RunQueue& queue_;
    std::size_t run_;
  };

  /// Waits for the next run's turn. Null: there is none left, or stop() was called.
  std::unique_ptr<Slot> next();
  /// No run begins any more.
  void stop();

 private:
  void end(std::size_t run);

  std::vector<std::size_t> passes_;
  std::size_t enough_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t next_ = 0, under_way_ = 0;  // run; passes
};

}  // namespace mgpu
