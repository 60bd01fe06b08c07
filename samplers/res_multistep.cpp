#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

namespace {

/// The refined exponential solver's second-order multistep (Zhang et al. 2023, arXiv:2308.02157), in -log sigma on
/// every path, with ancestral noise (eta = 1) or none, and with CFG++ or without.
at::Tensor refined(at::Tensor x, std::span<const double> sigmas, const SampleContext& context, double eta,
                   bool cfg_pp) {
  at::Tensor previous;
  double previous_down = 0;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double sigma = sigmas[i], next = sigmas[i + 1];
    auto [denoised, uncond] = evaluate(context, i, x, sigma);
    const at::Tensor& direction = cfg_pp ? uncond : denoised;
    Ancestral split = ancestral_exploding(sigma, next, eta);
    if (split.down == 0 || !previous.defined()) {
      at::Tensor d = derivative(x, sigma, direction);
      x = cfg_pp ? denoised + d * split.down : x + d * (split.down - sigma);
    } else {
      double h = std::log(sigma / split.down), c = std::log(previous_down / sigmas[i - 1]) / h;
      double phi_1 = std::expm1(-h) / -h, phi_2 = (phi_1 - 1) / -h;
      bool flat = c == 0;  // the last step stood still: its weights are infinite, and ComfyUI drops what is NaN
      double b2 = flat ? 0 : phi_2 / c, b1 = phi_1 - b2;
      if (cfg_pp) x = x + (denoised - uncond);
      x = std::exp(-h) * x + h * (b1 * direction + b2 * previous);
    }
    if (eta > 0 && next > 0) x = x + draw(context, x, sigma, next) * split.up;
    previous = direction;
    previous_down = split.down;
  }
  return x;
}

}  // namespace

/// RES multistep.
at::Tensor res_multistep(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return refined(std::move(x), sigmas, context, 0, false);
}

/// RES multistep with CFG++ (arXiv:2406.08070).
at::Tensor res_multistep_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return refined(std::move(x), sigmas, context, 0, true);
}

/// RES multistep with ancestral noise.
at::Tensor res_multistep_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return refined(std::move(x), sigmas, context, 1, false);
}

/// RES multistep with ancestral noise and CFG++.
at::Tensor res_multistep_ancestral_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return refined(std::move(x), sigmas, context, 1, true);
}

}  // namespace mgpu::sample
