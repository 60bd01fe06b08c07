#include <algorithm>
#include <cmath>
#include <limits>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

namespace {

/// The weights of the latest predictions (oldest first) for the step from lambdas[from] to lambdas[to], over the
/// Lagrange basis on `points` (SA-Solver, eqs. 15 and 18). Not finite where the points are too close for their dtype.
at::Tensor adams_weights(const at::Tensor& points, const at::Tensor& from, const at::Tensor& to, double alpha,
                         double tau) {
  std::int64_t order = points.size(0);
  double speed = 1 + tau * tau;
  at::Tensor p = at::arange(order, points.options());
  // Integrals of speed * exp(speed * (x - to)) * x^p from `from` to `to`, by repeated integration by parts.
  at::Tensor terms = to.pow(p) - from.pow(p) * (-speed * (to - from)).exp();
  at::Tensor depth = p.unsqueeze(1) - p.unsqueeze(0), log_factorial = (p + 1).lgamma();
  at::Tensor magnitude = log_factorial.unsqueeze(1) - log_factorial.unsqueeze(0) - depth * std::log(speed);
  at::Tensor sign = 1 - 2 * depth.remainder(2);
  at::Tensor integrals = at::matmul((magnitude.exp() * sign).tril(), terms);
  const auto [solution, info] =
      at::linalg_solve_ex(points.pow(p.unsqueeze(1)), integrals, /*left=*/true, /*check_errors=*/false);
  if (info.item<int>() != 0) return at::full_like(solution, std::numeric_limits<double>::quiet_NaN());
  return alpha * solution;
}

/// Stochastic Adams predictor (order 3) and corrector (order 4); noise between 20 % and 80 % of the way. With
/// `reevaluate` the corrected state is evaluated too (PECE).
at::Tensor stochastic_adams(at::Tensor x, std::span<const double> schedule, const SampleContext& context,
                            bool reevaluate) {
  NoisePath path = context.table.path;
  std::vector<double> sigmas = finite_log_snr(schedule, context.table, x.scalar_type()), log_snrs;
  for (double sigma : sigmas) log_snrs.push_back(half_log_snr(path, sigma));
  at::Tensor exact = at::tensor(log_snrs, at::kDouble), lambdas = exact.to(x.scalar_type());
  double noisy_from = context.table.percent_to_sigma(0.2), noisy_to = context.table.percent_to_sigma(0.8), tau = 0;
  std::vector<at::Tensor> predictions;  // at most four, the latest last
  std::size_t last_point = 0;           // the step of the latest

  auto step = [&](const at::Tensor& state, std::size_t order, std::size_t from, std::size_t to) {
    auto end = static_cast<std::int64_t>(last_point + 1), count = static_cast<std::int64_t>(order);
    // Terms of very different size cancel here, so the arithmetic runs in x's own dtype, as the reference
    // implementation's does; of thousands of steps that dtype tells the levels no longer apart.
    auto weights_in = [&](const at::Tensor& points) {
      return adams_weights(points.slice(0, end - count, end), points[static_cast<std::int64_t>(from)],
                           points[static_cast<std::int64_t>(to)], alpha(path, sigmas[to]), tau);
    };
    at::Tensor weights = weights_in(lambdas);
    if (!weights.isfinite().all().item<bool>()) weights = weights_in(exact);
    at::Tensor sum = (sigmas[to] / sigmas[from] * std::exp(-tau * tau * (log_snrs[to] - log_snrs[from]))) * state;
    for (std::int64_t k = 0; k < count; ++k)
      sum = sum + predictions[predictions.size() - order + static_cast<std::size_t>(k)] * weights[k].item<double>();
    return sum;
  };

  at::Tensor predicted = x, corrected, noise;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, predicted, sigmas[i]).denoised;
    predictions.push_back(denoised);
    if (predictions.size() > 4) predictions.erase(predictions.begin());
    last_point = i;
    bool to_zero = sigmas[i + 1] == 0;
    std::size_t left = sigmas.back() == 0 ? sigmas.size() - 1 - i : 4;  // lower orders towards a final 0
    std::size_t corrector = i == 0 || (to_zero && !reevaluate) ? 0 : std::min(predictions.size(), left);
    x = predicted;
    if (corrector > 0) {
      x = step(corrected, corrector, i - 1, i);
      if (tau > 0) x = x + noise;
      if (reevaluate) predictions.back() = denoised = context.denoise(x, sigmas[i]).denoised;
    }
    if (to_zero) return denoised;
    corrected = x;
    tau = noisy_from >= sigmas[i + 1] && sigmas[i + 1] >= noisy_to ? 1 : 0;
    predicted = step(x, std::min({std::size_t{3}, predictions.size(), left - 1}), i, i + 1);
    if (tau > 0) {
      double h = log_snrs[i + 1] - log_snrs[i];
      noise = draw(context, x, sigmas[i], sigmas[i + 1]) * (sigmas[i + 1] * std::sqrt(-std::expm1(-2 * h)));
      predicted = predicted + noise;
    }
  }
  return predicted;
}

}  // namespace

/// SA-Solver (Xue et al. 2023, arXiv:2309.05019), predict-evaluate-correct.
at::Tensor sa_solver(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return stochastic_adams(std::move(x), sigmas, context, false);
}

/// SA-Solver, predict-evaluate-correct-evaluate.
at::Tensor sa_solver_pece(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return stochastic_adams(std::move(x), sigmas, context, true);
}

}  // namespace mgpu::sample
