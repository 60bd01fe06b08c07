#pragma once

#include <c10/util/Exception.h>

#include <atomic>
#include <cstdint>
#include <limits>

#include "core/device_id.h"

namespace mgpu {

/// A CPU device, plain or virtual, has no room for an allocation within its limit. As LibTorch's error for a GPU, but
/// it knows its device.
class HostOutOfMemory : public c10::OutOfMemoryError {
 public:
  HostOutOfMemory(const DeviceId& device, const std::string& why);
  const DeviceId& device() const { return device_; }

 private:
  DeviceId device_;
};

/// What the tensors of one CPU device hold of main memory. LibTorch's CPU allocator is wrapped so that what a thread
/// allocates is booked with the device whose HostDeviceScope it is in, and given back by whichever thread frees it.
/// Not seen: scratch of oneDNN, MKL and OpenMP threads, which do not allocate through LibTorch. For several threads at
/// once; the numbers are exact.
class HostAccount {
 public:
  /// The account of `cpu` or `cpu:N`. It lives until the process ends.
  static HostAccount& of(const DeviceId& device);

  /// Throws HostOutOfMemory, and books nothing, where the limit would be passed.
  void charge(std::uint64_t bytes);
  void release(std::uint64_t bytes) noexcept;

  const DeviceId& device() const { return device_; }
  std::uint64_t current() const { return current_; }
  /// The most that was booked at once since reset_peak() or the start.
  std::uint64_t peak() const { return peak_; }
  void reset_peak();
  void set_limit(std::uint64_t bytes) { limit_ = bytes; }
  std::uint64_t limit() const { return limit_; }

  HostAccount(const HostAccount&) = delete;
  HostAccount& operator=(const HostAccount&) = delete;

 private:
  explicit HostAccount(const DeviceId& device) : device_(device) {}
  void raise_peak(std::uint64_t bytes);

  DeviceId device_;
  std::atomic<std::uint64_t> current_ = 0, peak_ = 0;
  std::atomic<std::uint64_t> limit_ = std::numeric_limits<std::uint64_t>::max();
};

/// While it lives, what the calling thread allocates in main memory is booked with a CPU device; in the scope of a GPU
/// or of no device with nobody, as outside of any scope. Scopes nest: the innermost counts.
class HostDeviceScope {
 public:
  HostDeviceScope();
  explicit HostDeviceScope(const DeviceId& device);
  ~HostDeviceScope();
  HostDeviceScope(const HostDeviceScope&) = delete;
  HostDeviceScope& operator=(const HostDeviceScope&) = delete;

 private:
  HostAccount* outer_;
};

/// Bytes beside the allocator's, as a mapped file's, booked with the calling thread's device while this lives. Throws
/// HostOutOfMemory.
class HostCharge {
 public:
  explicit HostCharge(std::uint64_t bytes);
  ~HostCharge();
  HostCharge(const HostCharge&) = delete;
  HostCharge& operator=(const HostCharge&) = delete;

 private:
  HostAccount* account_;
  std::uint64_t bytes_;
};

}  // namespace mgpu
