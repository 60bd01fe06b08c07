#pragma once

#include <cstdint>

#include "core/memory.h"
#include "core/quietly.h"

namespace mgpu {

/// A limit of a device's allocations (limit_allocations()) for as long as this lives: whoever uses the device later, in
/// whatever role, is not bound by it.
class AllocationLimit {
 public:
  AllocationLimit(const DeviceId& device, std::uint64_t bytes) : device_(device) { limit_allocations(device, bytes); }
  ~AllocationLimit() {
    quietly([this] { unlimit_allocations(device_); });
  }
  AllocationLimit(const AllocationLimit&) = delete;
  AllocationLimit& operator=(const AllocationLimit&) = delete;

 private:
  DeviceId device_;
};

}  // namespace mgpu
