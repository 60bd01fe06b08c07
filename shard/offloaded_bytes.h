#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>

#include "core/devices.h"

namespace mgpu {

/// What donors keep for others, now and at most. From any thread.
class OffloadedBytes {
 public:
  void keep(const DeviceId& donor, std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    Count& count = counts_[donor];
    count.now += bytes;
    count.most = std::max(count.most, count.now);
  }
  void give_back(const DeviceId& donor, std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    counts_[donor].now -= bytes;
  }
  std::uint64_t most(const DeviceId& donor) const {
    const std::lock_guard lock(mutex_);
    const auto count = counts_.find(donor);
    return count == counts_.end() ? 0 : count->second.most;
  }

 private:
  struct Count {
    std::uint64_t now = 0, most = 0;
  };
  mutable std::mutex mutex_;
  std::map<DeviceId, Count> counts_;
};

}  // namespace mgpu
