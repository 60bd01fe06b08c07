#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mgpu {

/// Bytes that this process holds on a device: on CUDA what the driver charges it (allocator, context and libraries
/// together), on the CPU its resident set, mapped weights included.
std::uint64_t bytes_in_use(at::Device device);

/// The highest bytes_in_use since the last call of reset_peak_bytes (or the start).
std::uint64_t peak_bytes(at::Device device);
void reset_peak_bytes(at::Device device);

/// Gives cached but unused memory back to the device, once its queued work is done.
void release_cached(at::Device device);

/// From here on allocations on a CUDA device fail with out of memory where they would pass `bytes`. No effect on the
/// CPU.
void limit_allocations(at::Device device, std::uint64_t bytes);

/// Waits for the device's queued work.
void synchronize(at::Device device);

}  // namespace mgpu
