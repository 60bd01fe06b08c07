#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "samplers/sampler.h"

namespace mgpu {

/// ComfyUI's initial noise: one draw of `shape` [batch, C, h, w] in fp32 from the CPU generator seeded `seed`.
at::Tensor initial_noise(std::uint64_t seed, at::IntArrayRef shape);

/// The noise that a sampler row asks for over `sigmas`, each draw of the whole batch shape, fp32 on the CPU. Empty for
/// NoiseSource::None. Independent noise comes from one fresh generator, seeded seed + 1 (modulo 2^64) on the CPU and
/// seed for Philox, as in ComfyUI. Brownian noise is the tree's increment over the step divided by sqrt|next - sigma|,
/// with entropy `seed`; its range is the least non-zero to the greatest of `sigmas`.
StepNoise make_step_noise(NoiseSource source, StepNoiseKind kind, std::uint64_t seed, std::vector<std::int64_t> shape,
                          std::span<const double> sigmas);

/// torch.randn on an NVIDIA GPU, but for the last digits of its logarithm and sine: Philox4x32-10 (Salmon et al. 2011,
/// "Parallel random numbers: as easy as 1, 2, 3") keyed by the seed, one subsequence an element, Box-Muller. As A1111
/// computes it, every element has a GPU thread of its own: true of draws up to the number of threads that the GPU holds
/// (270336 on an H100; a 1024x1024 latent of Flux has 262144 values). Smaller GPUs deal larger draws otherwise.
class PhiloxGenerator {
 public:
  explicit PhiloxGenerator(std::uint64_t seed) : seed_(seed) {}

  /// The next fp32 draw, on the CPU.
  at::Tensor randn(at::IntArrayRef shape);

 private:
  std::uint64_t seed_;
  std::uint64_t draws_ = 0;
};

}  // namespace mgpu
