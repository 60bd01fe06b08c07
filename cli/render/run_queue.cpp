#include "cli/render/run_queue.h"

namespace mgpu {

std::unique_ptr<RunQueue::Slot> RunQueue::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return next_ == passes_.size() || under_way_ < enough_; });
  if (next_ == passes_.size()) return nullptr;
  auto slot = std::make_unique<Slot>(*this, next_);
  under_way_ += passes_[next_++];
  return slot;
}

void RunQueue::stop() {
  {
    const std::lock_guard lock(mutex_);
    next_ = passes_.size();
  }
  changed_.notify_all();
}

void RunQueue::end(std::size_t run) {
  {
    const std::lock_guard lock(mutex_);
    under_way_ -= passes_[run];
  }
  changed_.notify_all();
}

}  // namespace mgpu
