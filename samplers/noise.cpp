#include "samplers/noise.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

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

/// cuRAND's Box-Muller, of the pair that holds the wanted lane.
float normal(const Block& block, std::size_t lane) {
  constexpr double scale = 1.0 / 4294967296.0;
  std::size_t pair = lane & 2;
  double u = block[pair] * scale + scale / 2;
  double angle = (block[pair + 1] * scale + scale / 2) * 2 * std::numbers::pi;
  double radius = std::sqrt(-2 * std::log(u));
  return static_cast<float>(radius * ((lane & 1) == 0 ? std::sin(angle) : std::cos(angle)));
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
  std::int64_t count = result.numel();
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t block = offset_ + static_cast<std::uint64_t>(i / threads_ / 4);
    auto subsequence = static_cast<std::uint64_t>(i % threads_);
    Block counter{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                  static_cast<std::uint32_t>(subsequence), static_cast<std::uint32_t>(subsequence >> 32)};
    values[i] = normal(philox(counter, seed_), static_cast<std::size_t>(i / threads_ % 4));
  }
  offset_ += static_cast<std::uint64_t>((std::max<std::int64_t>(count, 1) - 1) / threads_ / 4 + 1);
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
