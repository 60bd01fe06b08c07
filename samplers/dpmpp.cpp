#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// DPM-Solver++(2S) (Lu et al. 2022, arXiv:2211.01095, algorithm 1) to below the next level, and fresh noise back up.
at::Tensor dpmpp_2s_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  NoisePath path = context.table.path;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double sigma = sigmas[i], next = sigmas[i + 1];
    at::Tensor denoised = evaluate(context, i, x, sigma).denoised;
    auto [down, up, scale] = ancestral(path, sigma, next);
    if (down == 0) {
      x = x + derivative(x, sigma, denoised) * (down - sigma);
    } else {
      // Pure noise has no log-SNR to halve: ComfyUI's middle is 0.9999 there.
      double middle = path == NoisePath::VarianceExploding ? log_midpoint(sigma, down)
                      : sigma == 1
                          ? 0.9999
                          : sigma_of_half_log_snr(path, (half_log_snr(path, sigma) + half_log_snr(path, down)) / 2);
      at::Tensor halfway = (middle / sigma) * x + (1 - middle / sigma) * denoised;
      x = (down / sigma) * x + (1 - down / sigma) * context.denoise(halfway, middle).denoised;
    }
    if (next > 0) x = scale * x + draw(context, x, sigma, next) * up;
  }
  return x;
}

/// dpmpp_2s_ancestral with CFG++ (arXiv:2406.08070): x is shifted by what guidance changes, in the whole step against
/// the unconditional part of the second evaluation. ComfyUI splits every path as variance exploding here.
at::Tensor dpmpp_2s_ancestral_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double sigma = sigmas[i], next = sigmas[i + 1];
    auto [denoised, uncond] = evaluate(context, i, x, sigma);
    Ancestral split = ancestral_exploding(sigma, next);
    if (split.down == 0) {
      x = denoised;
    } else {
      double middle = log_midpoint(sigma, split.down), ratio = split.down / sigma;
      at::Tensor halfway = (middle / sigma) * (x + (denoised - uncond)) + (1 - middle / sigma) * denoised;
      Denoised second = context.denoise(halfway, middle);
      x = ratio * (x + (denoised - second.uncond)) + (1 - ratio) * second.denoised;
    }
    if (next > 0) x = x + draw(context, x, sigma, next) * split.up;
  }
  return x;
}

/// DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2) in t = -log sigma, on both noise paths as ComfyUI
/// runs it.
at::Tensor dpmpp_2m(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  at::Tensor previous;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, x, sigmas[i]).denoised, direction = denoised;
    double ratio = sigmas[i + 1] / sigmas[i];
    if (previous.defined() && ratio > 0) {
      double half = std::log(ratio) / (2 * std::log(sigmas[i] / sigmas[i - 1]));
      direction = (1 + half) * denoised - half * previous;
    }
    x = ratio * x + (1 - ratio) * direction;
    previous = denoised;
  }
  return x;
}

/// dpmpp_2m with CFG++ (arXiv:2406.08070): from the guided latent along the unconditional direction.
at::Tensor dpmpp_2m_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  at::Tensor previous;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    auto [denoised, uncond] = evaluate(context, i, x, sigmas[i]);
    double ratio = sigmas[i + 1] / sigmas[i];
    at::Tensor mix = -ratio * uncond;
    if (previous.defined() && ratio > 0) {
      double half = std::log(ratio) / (2 * std::log(sigmas[i] / sigmas[i - 1]));
      mix = mix + ((1 - ratio) * half) * (denoised - previous);
    }
    x = denoised + mix + ratio * x;
    previous = uncond;
  }
  return x;
}

}  // namespace mgpu::sample
