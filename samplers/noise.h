#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "samplers/sampler.h"

namespace mgpu {

/// ComfyUI's initial noise: one draw of `shape` [batch, C, h, w] in fp32 from the CPU generator seeded `seed`.
at::Tensor initial_noise(std::uint64_t seed, at::IntArrayRef shape);

/// Step noise from a fresh CPU generator seeded seed + 1, drawn for the whole batch shape [batch, C, h, w].
StepNoise cpu_step_noise(std::uint64_t seed, std::vector<std::int64_t> shape);

}  // namespace mgpu
