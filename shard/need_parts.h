#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/model_set.h"
#include "shard/needs.h"

namespace mgpu {

// What components' needs of memory are put together from.

inline constexpr std::uint64_t kFp32 = 4;                             // bytes
inline constexpr std::uint64_t kWorkspace = std::uint64_t{64} << 20;  // cuBLAS and cuDNN, for every component

/// Bytes of the part's tensors whose names begin so, under its prefix, once loaded.
std::uint64_t bytes_below(const Part& part, std::string_view level, at::ScalarType dtype);

/// Positions of the result of each of a UNet's down blocks.
std::vector<std::uint64_t> unet_positions(const UNetSizes& sizes, const LargestPicture& picture);

/// LibTorch's attention on a CPU takes tiles of 256 queries and 512 keys, a thread each.
std::uint64_t attention_scratch(std::uint64_t head_dim);

/// What loading adds for a moment on a CPU: a weight as it is stored beside itself widened, a convolution's beside
/// itself rearranged.
std::uint64_t loading_bytes(const Part& part, at::ScalarType dtype);

}  // namespace mgpu
