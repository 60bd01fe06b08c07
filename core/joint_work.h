#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <mutex>

namespace mgpu {

/// Work that several threads ("ranks") do together: each needs all of the others. Whatever a rank throws, wherever in
/// its part, also where it cannot even begin, ends the waiting of the others, and the first failure is the work's.
class JointWork {
 public:
  /// Thrown to a rank that waits for the others, or comes to wait, once one has failed. run() throws the failure.
  class Broken {};

  /// Has a thread do a rank's part. What it returns is ready once the part is over.
  using Begin = std::function<std::future<void>(std::size_t rank, std::function<void()> part)>;
  /// Runs work(0) in the calling thread, work(1) ... work(ranks - 1) in those that `begin` gives, and waits for all.
  void run(std::size_t ranks, const Begin& begin, const std::function<void(std::size_t rank)>& work);

  /// Ends the waiting of all ranks; only the first failure counts.
  void fail(std::exception_ptr cause) noexcept;

 private:
  friend class Exchange;
  bool has_failed();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::exception_ptr cause_;
};

}  // namespace mgpu
