#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "core/family.h"
#include "core/need.h"

namespace mgpu {

// What components' needs of memory are put together from.

inline constexpr std::uint64_t kFp32 = 4;                             // bytes
inline constexpr std::uint64_t kWorkspace = std::uint64_t{64} << 20;  // cuBLAS and cuDNN, for every component

/// Bytes of the part's tensors whose names begin so, under its prefix, once loaded.
std::uint64_t bytes_below(const Part& part, std::string_view level, at::ScalarType dtype);

/// `count` blocks of one kind, whose tensors' names begin with `level` and their number, weighed one by one: 8-bit
/// files keep some of them wider. `ahead`: what the names of layers that serve only before the steps hold.
BlockNeed blocks_below(std::string_view kind, int count, const Part& part, std::string_view level, at::ScalarType dtype,
                       std::span<const std::string_view> precomputed = {});

/// The largest layer that serves ahead, as it is stored and as it is computed with.
std::uint64_t largest_precomputed(const Part& part, at::ScalarType dtype,
                                  std::span<const std::string_view> precomputed);

/// Whether the part has 8-bit weights.
bool has_8bit_weights(const Part& part);

/// What a run's sampler keeps of a picture's latent.
std::uint64_t latent_bytes(const LatentFormat& format, const LargestPicture& picture);

/// An encoder's component: what it reads of its part, of which files hold more (T5's token embedding twice, a
/// projection that is not used). It computes in fp32.
ComponentNeed encoder_need(std::string_view key, const Part& part, at::ScalarType dtype, BlockNeed layers,
                           std::uint64_t stem, std::uint64_t head, std::uint64_t activation,
                           std::uint64_t activation_on_cpu);

/// The most that a transformer encoder computing in fp32 has beside its weights: one linear layer's weight, widened,
/// and a block's activations.
std::uint64_t encoder_activation(std::uint64_t tokens, std::uint64_t hidden, std::uint64_t mlp, std::uint64_t heads);

/// LibTorch's attention on a CPU takes tiles of 256 queries and 512 keys, a thread each.
std::uint64_t attention_scratch(std::uint64_t head_dim);

/// What loading adds for a moment on a CPU: a weight as it is stored beside itself widened, a convolution's beside
/// itself rearranged.
std::uint64_t loading_bytes(const Part& part, at::ScalarType dtype);

// Multiplications, in which relative times are counted.

/// Of a residual block: two 3x3 convolutions, and a 1x1 one where the channels change.
double residual_work(double positions, double in, double out);
/// Of an attention over all positions, with its four projections.
double attention_work(double positions, double width);

}  // namespace mgpu
