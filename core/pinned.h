#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/device_id.h"

namespace mgpu {

/// Where page-locked memory comes from.
enum class PinnedFrom : std::uint8_t {
  Driver,  ///< exactly as large as asked for; given back when freed
  Cache,   ///< LibTorch's allocator: rounds up to powers of two, and uses again what was freed
};

/// Main memory that copies to and from a GPU go through, [bytes] uint8: page-locked, which GPUs read and write at the
/// link's speed, or where the system gives no more of that (containers and WSL limit it), ordinary memory, which is
/// slower and makes the caller wait. The first refusal is a note of that GPU. Throws what the allocators throw for any
/// other reason.
at::Tensor staging_bytes(std::int64_t bytes, PinnedFrom from, const DeviceId& gpu);

/// A ring of such buffers, of equal size. Where the system refuses, fewer of them, then smaller ones, all page-locked;
/// in the end ordinary memory.
std::vector<at::Tensor> staging_ring(std::int64_t count, std::int64_t bytes, const DeviceId& gpu);

}  // namespace mgpu
