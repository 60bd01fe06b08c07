#include "core/copy_threads.h"

#include <algorithm>
#include <cstring>

#include "core/host_limits.h"

namespace mgpu {
namespace {

constexpr std::size_t kMost = 8;  // more gain little: the memory itself is the limit
constexpr std::size_t kWorthSharing = std::size_t{1} << 20;

}  // namespace

CopyThreads::CopyThreads() {
  parts_ = std::clamp<std::size_t>(static_cast<std::size_t>(host_threads()) / 2, 1, kMost);
  try {
    for (std::size_t i = 0; i < parts_; ++i) threads_.emplace_back([this, i] { serve(i); });
  } catch (...) {  // no more threads: those that there are wait for work that never comes
    stop();
    throw;
  }
}

CopyThreads::~CopyThreads() {
  stop();
}

void CopyThreads::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wakes_.notify_all();
}

void CopyThreads::copy(std::byte* to, std::span<const std::byte> from) {
  if (from.size() < kWorthSharing) {
    std::memcpy(to, from.data(), from.size());
    return;
  }
  std::unique_lock lock(mutex_);
  to_ = to;
  from_ = from;
  left_ = parts_;
  ++round_;
  wakes_.notify_all();
  done_.wait(lock, [this] { return left_ == 0; });
}

void CopyThreads::serve(std::size_t number) {
  std::unique_lock lock(mutex_);
  for (std::size_t seen = 0;;) {
    wakes_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    lock.unlock();
    copy_part(number);
    lock.lock();
    if (--left_ == 0) done_.notify_one();
  }
}

void CopyThreads::copy_part(std::size_t number) const {
  const std::size_t all = from_.size();
  const std::size_t begin = all * number / parts_, end = all * (number + 1) / parts_;
  std::memcpy(to_ + begin, from_.data() + begin, end - begin);
}

}  // namespace mgpu
