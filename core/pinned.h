#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mgpu {

/// Page-locked main memory, [bytes] uint8, which GPUs read at the link's speed. Exactly so large: LibTorch's own
/// allocator rounds up to powers of two. Throws c10::Error where the system gives no more.
at::Tensor pinned_bytes(std::int64_t bytes);

}  // namespace mgpu
