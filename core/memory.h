#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>

#include "core/device_id.h"

namespace mgpu {

/// LibTorch's name for a device: it has one CPU, whichever virtual device it computes for.
at::Device torch_device(const DeviceId& id);

/// Bytes that this process has in use on a device: on CUDA those of tensors and what the driver charges beside the
/// allocator (context and libraries), without free blocks that the allocator caches; on a CPU device what is booked
/// with it (HostAccount; mapped weights included), and on plain `cpu`, which the program is on as well, program_bytes()
/// besides.
std::uint64_t bytes_in_use(const DeviceId& device);

/// What the context and the libraries' modules take of a GPU beside tensors, of this process alone; 0 for a CPU device.
std::uint64_t driver_bytes(const DeviceId& device);

/// Bytes that any program could still allocate on a GPU now; nothing where the GPU does not answer, and for a CPU
/// device.
std::optional<std::uint64_t> free_gpu_bytes(const DeviceId& device) noexcept;

/// The highest bytes_in_use since the last call of reset_peak_bytes (or the start).
std::uint64_t peak_bytes(const DeviceId& device);
void reset_peak_bytes(const DeviceId& device);

/// Gives back what cuBLAS works in, which LibTorch keeps for every thread and stream until the program ends: a job's
/// threads are not the next one's.
void release_workspaces();

/// The GPU whose work fails, whatever it is asked: the one that another device's worker was waiting for. Nothing where
/// all answer.
std::optional<DeviceId> failed_gpu();

/// Gives cached but unused memory back to the device, once its queued work is done.
void release_cached(const DeviceId& device);

/// From here on allocations on the device fail with out of memory where they would pass `bytes`, on CUDA with what is
/// cached: c10::OutOfMemoryError, on a CPU device HostOutOfMemory.
void limit_allocations(const DeviceId& device, std::uint64_t bytes);

/// Takes that limit away, a GPU's as a CPU device's.
void unlimit_allocations(const DeviceId& device);

/// CUDA keeps a thread's last error, and the next check of a kernel launch in the thread would take one for its own
/// that was dealt with, as an allocation's that a library was refused.
void forget_cuda_error() noexcept;

/// Has LibTorch's CUDA allocator grow its segments in place, so that free memory between tensors of other sizes is used
/// and what is reserved does not pass the plan. To be called before the first CUDA tensor; the functions above do.
/// Settings of the user's (PYTORCH_CUDA_ALLOC_CONF or PYTORCH_ALLOC_CONF) are left as they are.
void prefer_expandable_segments();

/// Gives a GPU's streams hardware queues of their own: by default they share eight, and what waits on one stream holds
/// up another's copies. Before CUDA starts; an environment that says otherwise is left alone.
void prefer_separate_queues();

/// Waits for the device's queued work.
void synchronize(at::Device device);

}  // namespace mgpu
