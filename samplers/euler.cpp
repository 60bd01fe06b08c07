#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// Euler steps along the probability-flow ODE (Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn).
at::Tensor euler(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, x, sigmas[i]).denoised;
    x = x + derivative(x, sigmas[i], denoised) * (sigmas[i + 1] - sigmas[i]);
  }
  return x;
}

/// Euler steps to below the next level, and fresh noise back up to it (k-diffusion's ancestral sampling, after
/// Song et al. 2020, arXiv:2010.02502, with eta = 1).
at::Tensor euler_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  NoisePath path = context.table.path;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, x, sigmas[i]).denoised;
    auto [down, up, scale] = ancestral(path, sigmas[i], sigmas[i + 1]);
    if (down == 0) {
      x = denoised;
      continue;
    }
    if (path == NoisePath::Flow) {
      double ratio = down / sigmas[i];
      x = scale * (ratio * x + (1 - ratio) * denoised);
    } else {
      x = x + derivative(x, sigmas[i], denoised) * (down - sigmas[i]);
    }
    x = x + draw(context, x, sigmas[i], sigmas[i + 1]) * up;
  }
  return x;
}

namespace {

/// CFG++ (Chung et al. 2024, arXiv:2406.08070): the guided latent is renoised with the unconditional noise.
at::Tensor cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context, double eta) {
  NoisePath path = context.table.path;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    auto [denoised, uncond] = evaluate(context, i, x, sigmas[i]);
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    double alpha_s = alpha(path, sigmas[i]), alpha_t = alpha(path, sigmas[i + 1]);
    at::Tensor noise = derivative(x, sigmas[i], alpha_s * uncond);
    Ancestral split = ancestral_exploding(sigmas[i] / alpha_s, sigmas[i + 1] / alpha_t, eta);
    x = alpha_t * denoised + (alpha_t * split.down) * noise;
    if (eta > 0) x = x + alpha_t * draw(context, x, sigmas[i], sigmas[i + 1]) * split.up;
  }
  return x;
}

}  // namespace

/// Euler steps with CFG++.
at::Tensor euler_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return cfg_pp(std::move(x), sigmas, context, 0);
}

/// Ancestral Euler steps with CFG++.
at::Tensor euler_ancestral_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return cfg_pp(std::move(x), sigmas, context, 1);
}

}  // namespace mgpu::sample
