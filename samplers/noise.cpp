#include "samplers/noise.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace mgpu {

at::Tensor initial_noise(std::uint64_t seed, at::IntArrayRef shape) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

StepNoise cpu_step_noise(std::uint64_t seed, std::vector<std::int64_t> shape) {
  return [generator = at::detail::createCPUGenerator(seed + 1), shape = std::move(shape)](double, double) {
    return at::randn(shape, generator, at::kFloat);
  };
}

}  // namespace mgpu
