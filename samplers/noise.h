#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "samplers/sampler.h"

namespace mgpu {

/// ComfyUI's initial noise: one draw of `shape` [batch, C, h, w] in fp32 from the CPU generator seeded `seed`.
at::Tensor initial_noise(std::uint64_t seed, at::IntArrayRef shape);

/// Step noise from a fresh CPU generator seeded seed + 1 (modulo 2^64), each draw of the whole batch shape.
StepNoise cpu_step_noise(std::uint64_t seed, std::vector<std::int64_t> shape);

}  // namespace mgpu
