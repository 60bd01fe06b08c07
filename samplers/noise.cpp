#include "samplers/noise.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <numbers>

#include "samplers/brownian_tree.h"

namespace mgpu {
namespace {

using Block = std::array<std::uint32_t, 4>;

/// Ten rounds of Philox4x32.
Block philox(Block counter, std::uint64_t seed) {
  auto key_0 = static_cast<std::uint32_t>(seed), key_1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    std::uint64_t a = 0xD2511F53ULL * counter[0], b = 0xCD9E8D57ULL * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key_0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key_1, static_cast<std::uint32_t>(a)};
    key_0 += 0x9E3779B9u;
    key_1 += 0xBB67AE85u;
  }
  return counter;
}

/// cuRAND's Box-Muller, of the first pair of a block.
float normal(const Block& block) {
  constexpr double scale = 1.0 / 4294967296.0;
  double radius = std::sqrt(-2 * std::log(block[0] * scale + scale / 2));
  return static_cast<float>(radius * std::sin((block[1] * scale + scale / 2) * 2 * std::numbers::pi));
}

/// One fp32 draw of `shape` from a fresh generator.
at::Tensor draw_once(StepNoiseKind kind, std::uint64_t seed, at::IntArrayRef shape) {
  if (kind == StepNoiseKind::Philox) return PhiloxGenerator(seed).randn(shape);
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

}  // namespace

at::Tensor initial_noise(std::uint64_t seed, at::IntArrayRef shape) {
  return draw_once(StepNoiseKind::Cpu, seed, shape);
}

at::Tensor PhiloxGenerator::randn(at::IntArrayRef shape) {
  at::Tensor result = at::empty(shape, at::kFloat);
  auto* values = result.mutable_data_ptr<float>();
  auto low = static_cast<std::uint32_t>(draws_), high = static_cast<std::uint32_t>(draws_ >> 32);
  at::parallel_for(0, result.numel(), 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      values[i] =
          normal(philox({low, high, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32)}, seed_));
  });
  ++draws_;
  return result;
}

StepNoise make_step_noise(NoiseSource source, StepNoiseKind kind, std::uint64_t seed, std::vector<std::int64_t> shape,
                          std::span<const double> sigmas) {
  if (source == NoiseSource::None) return nullptr;
  if (source == NoiseSource::Independent) {
    if (kind == StepNoiseKind::Philox)
      return [generator = std::make_shared<PhiloxGenerator>(seed), shape = std::move(shape)](double, double) {
        return generator->randn(shape);
      };
    return [generator = at::detail::createCPUGenerator(seed + 1), shape = std::move(shape)](double, double) {
      return at::randn(shape, generator, at::kFloat);
    };
  }
  double low = std::numeric_limits<double>::infinity(), high = 0;
  for (double sigma : sigmas) {
    if (sigma > 0) low = std::min(low, sigma);
    high = std::max(high, sigma);
  }
  auto tree = std::make_shared<BrownianTree>(
      low, high, seed, [kind, shape = std::move(shape)](std::uint64_t node) { return draw_once(kind, node, shape); });
  return
      [tree](double sigma, double next) { return tree->increment(next, sigma) / -std::sqrt(std::abs(next - sigma)); };
}

}  // namespace mgpu
