#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

namespace {

/// The noise scale function phi of ER-SDE-Solver 5.
double noise_scale(double lambda) {
  return lambda * (std::exp(std::pow(lambda, 0.3)) + 10);
}

/// The integrals of 1 / phi and (lambda - from) / phi from `to` up to `from`, as sums over 200 points.
std::pair<double, double> integrals(double from, double to) {
  constexpr int points = 200;
  double step = (from - to) / points, plain = 0, weighted = 0;
  for (int k = 0; k < points; ++k) {
    double lambda = to + k * step, scale = noise_scale(lambda);
    plain += 1 / scale;
    weighted += (lambda - from) / scale;
  }
  return {plain * step, weighted * step};
}

}  // namespace

/// ER-SDE-Solver-3, VP form (Cui et al. 2023, arXiv:2309.06169), in lambda = sigma / alpha.
at::Tensor er_sde(at::Tensor x, std::span<const double> schedule, const SampleContext& context) {
  NoisePath path = context.table.path;
  std::vector<double> sigmas = finite_log_snr(schedule, context.table, x.scalar_type()), lambdas;
  for (double sigma : sigmas) lambdas.push_back(sigma / alpha(path, sigma));
  at::Tensor previous, previous_slope;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, x, sigmas[i]).denoised;
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    double from = lambdas[i], to = lambdas[i + 1], dt = to - from;
    double alpha_t = alpha(path, sigmas[i + 1]), scale = noise_scale(to), r = scale / noise_scale(from);
    x = (alpha_t / alpha(path, sigmas[i]) * r) * x + (alpha_t * (1 - r)) * denoised;
    if (i >= 1) {
      auto [plain, weighted] = integrals(from, to);
      at::Tensor slope = (denoised - previous) / (from - lambdas[i - 1]);
      x = x + (alpha_t * (dt + plain * scale)) * slope;
      if (i >= 2) {
        at::Tensor curvature = (slope - previous_slope) / ((from - lambdas[i - 2]) / 2);
        x = x + (alpha_t * (dt * dt / 2 + weighted * scale)) * curvature;
      }
      previous_slope = slope;
    }
    double variance = to * to - from * from * r * r;
    x = x + alpha_t * draw(context, x, sigmas[i], sigmas[i + 1]) * (variance > 0 ? std::sqrt(variance) : 0);
    previous = denoised;
  }
  return x;
}

}  // namespace mgpu::sample
