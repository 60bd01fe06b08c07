#include "core/memory.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAAllocatorConfig.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <mutex>

#include "core/fault_point.h"
#include "core/host_memory.h"
#include "core/own_memory.h"
#include "core/proc.h"

namespace mgpu {
namespace {

/// LibTorch sets its allocator up at the first CUDA tensor; we ask it for numbers before that.
void start_cuda() {
  static std::once_flag once;
  std::call_once(once, [] {
    prefer_expandable_segments();
    note_gpus();
  });
  at::globalContext().lazyInitDevice(at::kCUDA);
}

at::DeviceIndex index_of(const DeviceId& device) {
  return static_cast<at::DeviceIndex>(device.index);
}

c10::CachingDeviceAllocator::DeviceStats stats(const DeviceId& device) {
  start_cuda();
  return c10::cuda::CUDACachingAllocator::getDeviceStats(index_of(device));
}

/// The allocator's total over both its pools.
template <typename Stats>
const auto& total(const Stats& values) {
  return values[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
}

struct DriverMemory {
  std::size_t free = 0, total = 0;
};

DriverMemory driver_memory(const DeviceId& device) {
  const c10::cuda::CUDAGuard guard(torch_device(device));
  DriverMemory out;
  C10_CUDA_CHECK(cudaMemGetInfo(&out.free, &out.total));
  return out;
}

/// What plain `cpu` holds beside tensors.
std::uint64_t program_share(const DeviceId& device) {
  return device == DeviceId::cpu() ? program_bytes() : 0;
}

}  // namespace

std::uint64_t driver_bytes(const DeviceId& device) {
  if (!device.is_cuda()) return 0;
  const auto reserved = static_cast<std::uint64_t>(total(stats(device).reserved_bytes).current);
  return driver_share(device.index, reserved).bytes(reserved);
}

std::optional<std::uint64_t> free_gpu_bytes(const DeviceId& device) noexcept {
  if (!device.is_cuda()) return std::nullopt;
  try {
    return driver_memory(device).free;
  } catch (const c10::Error&) {  // lost
    return std::nullopt;
  }
}

at::Device torch_device(const DeviceId& id) {
  return id.is_cuda() ? at::Device(at::kCUDA, static_cast<at::DeviceIndex>(id.index)) : at::Device(at::kCPU);
}

std::uint64_t bytes_in_use(const DeviceId& device) {
  device_call();
  if (!device.is_cuda()) return program_share(device) + HostAccount::of(device).current();
  return driver_bytes(device) + static_cast<std::uint64_t>(total(stats(device).allocated_bytes).current);
}

std::uint64_t peak_bytes(const DeviceId& device) {
  device_call();
  if (!device.is_cuda()) return program_share(device) + HostAccount::of(device).peak();
  return driver_bytes(device) + static_cast<std::uint64_t>(total(stats(device).allocated_bytes).peak);
}

void reset_peak_bytes(const DeviceId& device) {
  device_call();
  if (device.is_cuda()) {
    start_cuda();
    c10::cuda::CUDACachingAllocator::resetPeakStats(index_of(device));
  } else {
    HostAccount::of(device).reset_peak();
  }
}

std::optional<DeviceId> failed_gpu() {
  std::optional<DeviceId> out;
  int before = 0;
  const bool is_known = cudaGetDevice(&before) == cudaSuccess;
  for (c10::DeviceIndex i = 0; i < c10::cuda::device_count() && !out; ++i) {
    if (!c10::cuda::hasPrimaryContext(i)) continue;
    cudaError_t found = cudaSetDevice(i);
    if (found == cudaSuccess) found = cudaStreamQuery(nullptr);
    if (found != cudaSuccess && found != cudaErrorNotReady) out = DeviceId::cuda(i);
  }
  if (is_known) static_cast<void>(cudaSetDevice(before));
  static_cast<void>(cudaGetLastError());
  return out;
}

void release_workspaces() {
  at::cuda::clearCublasWorkspaces();
}

void release_cached(const DeviceId& device) {
  device_call();
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::emptyCache();
}

void limit_allocations(const DeviceId& device, std::uint64_t bytes) {
  device_call();
  if (!device.is_cuda()) {
    HostAccount::of(device).set_limit(bytes);
    return;
  }
  start_cuda();
  const double share = static_cast<double>(bytes) / static_cast<double>(driver_memory(device).total);
  c10::cuda::CUDACachingAllocator::setMemoryFraction(std::min(1.0, share), index_of(device));
}

void unlimit_allocations(const DeviceId& device) {
  device_call();
  if (!device.is_cuda()) return HostAccount::of(device).set_limit(std::numeric_limits<std::uint64_t>::max());
  start_cuda();
  c10::cuda::CUDACachingAllocator::setMemoryFraction(1.0, index_of(device));
}

void forget_cuda_error() noexcept {
  cudaGetLastError();
}

void prefer_expandable_segments() {
  for (const char* variable : {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"})
    if (std::getenv(variable)) return;
  c10::CachingAllocator::setAllocatorSettings("expandable_segments:True");
}

void prefer_separate_queues() {
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/0);
}

void synchronize(at::Device device) {
  device_call();
  if (!device.is_cuda()) return;
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::device_synchronize();
}

}  // namespace mgpu
