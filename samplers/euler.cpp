#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// Euler steps along the probability-flow ODE (Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn).
at::Tensor euler(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = context.denoise(x, sigmas[i]).denoised;
    report(context, i, sigmas[i], x, denoised);
    x = x + derivative(x, sigmas[i], denoised) * (sigmas[i + 1] - sigmas[i]);
  }
  return x;
}

/// Euler steps to below the next level, and fresh noise back up to it (k-diffusion's ancestral sampling, after
/// Song et al. 2020, arXiv:2010.02502, with eta = 1).
at::Tensor euler_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  bool flow = context.table.path == NoisePath::Flow;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = context.denoise(x, sigmas[i]).denoised;
    report(context, i, sigmas[i], x, denoised);
    auto [down, up, scale] = ancestral(context.table.path, sigmas[i], sigmas[i + 1]);
    if (down == 0) {
      x = denoised;
      continue;
    }
    if (flow) {
      double ratio = down / sigmas[i];
      x = scale * (ratio * x + (1 - ratio) * denoised);
    } else {
      x = x + derivative(x, sigmas[i], denoised) * (down - sigmas[i]);
    }
    x = x + draw(context, x, sigmas[i], sigmas[i + 1]) * up;
  }
  return x;
}

}  // namespace mgpu::sample
