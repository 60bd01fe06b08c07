#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// Heun's second-order steps (Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn).
at::Tensor heun(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double next = sigmas[i + 1], dt = next - sigmas[i];
    at::Tensor d = derivative(x, sigmas[i], evaluate(context, i, x, sigmas[i]).denoised);
    if (next > 0) {
      at::Tensor ahead = x + d * dt;
      d = (d + derivative(ahead, next, context.denoise(ahead, next).denoised)) / 2;
    }
    x = x + d * dt;
  }
  return x;
}

/// Heun++ of Carzit's samplers (MIT): up to three derivatives, weighted by their sigma over the first one.
at::Tensor heunpp2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  double end = sigmas.back();
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double next = sigmas[i + 1], dt = next - sigmas[i];
    at::Tensor d = derivative(x, sigmas[i], evaluate(context, i, x, sigmas[i]).denoised);
    if (next != end) {
      double after = sigmas[i + 2];
      at::Tensor ahead = x + d * dt;
      at::Tensor second = derivative(ahead, next, context.denoise(ahead, next).denoised);
      if (after == end) {
        double weight = next / (2 * sigmas[0]);
        d = d * (1 - weight) + second * weight;
      } else {
        at::Tensor further = ahead + second * (after - next);
        at::Tensor third = derivative(further, after, context.denoise(further, after).denoised);
        double w2 = next / (3 * sigmas[0]), w3 = after / (3 * sigmas[0]);
        d = (1 - w2 - w3) * d + w2 * second + w3 * third;
      }
    }
    x = x + d * dt;
  }
  return x;
}

}  // namespace mgpu::sample
