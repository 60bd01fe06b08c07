#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// The posterior steps of DDPM (Ho et al. 2020, arXiv:2006.11239, algorithm 2), on x / sqrt(1 + sigma^2) on every path.
at::Tensor ddpm(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double sigma = sigmas[i], next = sigmas[i + 1];
    at::Tensor noise = derivative(x, sigma, evaluate(context, i, x, sigma).denoised);
    double kept = 1 / (sigma * sigma + 1), kept_next = 1 / (next * next + 1), ratio = kept / kept_next;
    x = std::sqrt(1 / ratio) * (x / std::sqrt(1 + sigma * sigma) - (1 - ratio) * noise / std::sqrt(1 - kept));
    if (next > 0) {
      x = x + std::sqrt((1 - ratio) * (1 - kept_next) / (1 - kept)) * draw(context, x, sigma, next);
      x = x * std::sqrt(1 + next * next);
    }
  }
  return x;
}

/// Latent consistency sampling (Luo et al. 2023, arXiv:2310.04378): the denoised latent, noised to the next level.
at::Tensor lcm(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    x = evaluate(context, i, x, sigmas[i]).denoised;
    double next = sigmas[i + 1];
    if (next > 0) x = alpha(context.table.path, next) * x + next * draw(context, x, sigmas[i], next);
  }
  return x;
}

}  // namespace mgpu::sample
