#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "shard/plan.h"
#include "tests/byte_sizes.h"

namespace mgpu::test {

/// What a Flux-like job asks for: 22.5 GiB of diffusion model, 9.5 GiB of T5.
std::vector<ComponentNeed> components();

/// A UNet of six pairs of blocks and a middle; the innermost weigh most.
std::vector<ComponentNeed> unet();

/// cuda:0 with that limit, 512 MiB of which are the driver's.
DeviceRoom room(std::uint64_t limit);
/// cuda:0, cuda:1, ... with those limits.
std::vector<DeviceRoom> rooms(const std::vector<std::uint64_t>& limits);
/// `cpu` as a donor of that size.
DeviceRoom main_memory(std::uint64_t bytes);

/// A job of one or two text encoders, a diffusion model of either kind and an autoencoder.
std::vector<ComponentNeed> random_components(std::mt19937_64& random);

/// "cuda:0 double 0-18, cuda:1 single 0-37*": a star marks what is streamed.
std::string ranges_of(const Plan& plan, std::string_view component);

/// All of what a plan says that two equal ones share: mode, reason, shortfall and every component's ranges.
std::string summary_of(const Plan& plan);

}  // namespace mgpu::test
