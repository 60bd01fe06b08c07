#include "core/joint_work.h"

#include <vector>

#include "core/fault_point.h"

namespace mgpu {

void JointWork::run(std::size_t ranks, const Begin& begin, const std::function<void(std::size_t rank)>& work) {
  const auto part = [&](std::size_t rank) noexcept {
    try {
      fault_point("rank");
      if (!has_failed()) work(rank);
    } catch (const Broken&) {  // the other's failure is known
    } catch (...) {
      fail(std::current_exception());
    }
  };
  std::vector<std::future<void>> begun;
  try {
    begun.resize(ranks - 1);
    for (std::size_t rank = 1; rank < ranks; ++rank) {
      fault_point("to a rank");
      begun[rank - 1] = begin(rank, [&part, rank] { part(rank); });
    }
  } catch (...) {
    fail(std::current_exception());
  }
  part(0);
  for (const std::future<void>& one : begun)
    if (one.valid()) one.wait();
  if (has_failed()) std::rethrow_exception(cause_);
}

void JointWork::fail(std::exception_ptr cause) noexcept {
  const std::lock_guard lock(mutex_);
  if (!cause_) cause_ = std::move(cause);
  changed_.notify_all();
}

bool JointWork::has_failed() {
  const std::lock_guard lock(mutex_);
  return cause_ != nullptr;
}

}  // namespace mgpu
