#pragma once

#include "samplers/sampler.h"

/// The sampler functions that the registry's rows name, by file. Each one's paper stands at its definition.
namespace mgpu::sample {

// euler.cpp
at::Tensor euler(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);
at::Tensor euler_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

// dpmpp.cpp
at::Tensor dpmpp_2m(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

}  // namespace mgpu::sample
