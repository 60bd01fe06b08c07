#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2) in t = -log sigma, on both noise paths as ComfyUI
/// runs it.
at::Tensor dpmpp_2m(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  at::Tensor previous;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = context.denoise(x, sigmas[i]).denoised;
    report(context, i, sigmas[i], x, denoised);
    double h = std::log(sigmas[i] / sigmas[i + 1]);  // infinite on the way to 0, where both exponentials are exact
    at::Tensor direction = denoised;
    if (previous.defined() && sigmas[i + 1] > 0) {
      double half = h / (2 * std::log(sigmas[i - 1] / sigmas[i]));
      direction = (1 + half) * denoised - half * previous;
    }
    x = (sigmas[i + 1] / sigmas[i]) * x - std::expm1(-h) * direction;
    previous = denoised;
  }
  return x;
}

}  // namespace mgpu::sample
