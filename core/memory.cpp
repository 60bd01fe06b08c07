#include "core/memory.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <fstream>

#include "core/proc.h"

namespace mgpu {
namespace {

/// LibTorch sets its allocator up at the first CUDA tensor; we ask it for numbers before that.
void start_cuda() {
  at::globalContext().lazyInitDevice(at::kCUDA);
}

c10::CachingDeviceAllocator::DeviceStats stats(at::Device device) {
  start_cuda();
  return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
}

/// The allocator's total over both its pools.
template <typename Stats>
const auto& total(const Stats& values) {
  return values[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
}

struct DriverMemory {
  std::size_t free = 0, total = 0;
};

DriverMemory driver_memory(at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  DriverMemory out;
  C10_CUDA_CHECK(cudaMemGetInfo(&out.free, &out.total));
  return out;
}

/// What the driver charges beyond the allocator: the context and the libraries' modules.
std::uint64_t driver_bytes(at::Device device) {
  const DriverMemory memory = driver_memory(device);
  const auto used = static_cast<std::uint64_t>(memory.total - memory.free);
  const auto reserved = static_cast<std::uint64_t>(total(stats(device).reserved_bytes).current);
  return used > reserved ? used - reserved : 0;
}

}  // namespace

std::uint64_t bytes_in_use(at::Device device) {
  if (!device.is_cuda()) return proc_bytes("/proc/self/status", "VmRSS:");
  return driver_bytes(device) + static_cast<std::uint64_t>(total(stats(device).reserved_bytes).current);
}

std::uint64_t peak_bytes(at::Device device) {
  if (!device.is_cuda()) return proc_bytes("/proc/self/status", "VmHWM:");
  return driver_bytes(device) + static_cast<std::uint64_t>(total(stats(device).reserved_bytes).peak);
}

void reset_peak_bytes(at::Device device) {
  if (device.is_cuda()) {
    start_cuda();
    c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
  } else {
    std::ofstream("/proc/self/clear_refs") << "5";  // proc(5): resets VmHWM to VmRSS
  }
}

void release_cached(at::Device device) {
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::emptyCache();
}

void limit_allocations(at::Device device, std::uint64_t bytes) {
  if (!device.is_cuda()) return;
  start_cuda();
  const double share = static_cast<double>(bytes) / static_cast<double>(driver_memory(device).total);
  c10::cuda::CUDACachingAllocator::setMemoryFraction(std::min(1.0, share), device.index());
}

void synchronize(at::Device device) {
  if (!device.is_cuda()) return;
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::device_synchronize();
}

}  // namespace mgpu
