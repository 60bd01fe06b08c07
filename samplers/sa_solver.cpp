#include <algorithm>
#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

namespace {

/// The weights of the latest predictions (oldest first) for the step from lambdas[from] to lambdas[to], over the
/// Lagrange basis on `points` (SA-Solver, eqs. 15 and 18). Terms of very different size cancel here, so the arithmetic
/// runs in x's own dtype, as the reference implementation's does.
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
  return alpha * at::linalg_solve(points.pow(p.unsqueeze(1)), integrals);
}

at::Tensor weighted_sum(std::span<const at::Tensor> predictions, const at::Tensor& weights) {
  at::Tensor sum = predictions[0] * weights[0].item<double>();
  for (std::size_t k = 1; k < predictions.size(); ++k)
    sum = sum + predictions[k] * weights[static_cast<std::int64_t>(k)].item<double>();
  return sum;
}

/// Stochastic Adams predictor (order 3) and corrector (order 4); noise between 20 % and 80 % of the way. With
/// `reevaluate` the corrected state is evaluated too (PECE).
at::Tensor stochastic_adams(at::Tensor x, std::span<const double> schedule, const SampleContext& context,
                            bool reevaluate) {
  NoisePath path = context.table.path;
  std::vector<double> sigmas = finite_log_snr(schedule, context.table, x.scalar_type()), log_snrs;
  for (double sigma : sigmas) log_snrs.push_back(half_log_snr(path, sigma));
  at::Tensor lambdas = at::tensor(log_snrs, at::kDouble).to(x.scalar_type());
  auto at_step = [&](std::size_t i) { return lambdas[static_cast<std::int64_t>(i)]; };
  double noisy_from = context.table.percent_to_sigma(0.2), noisy_to = context.table.percent_to_sigma(0.8);

  std::vector<at::Tensor> predictions;
  at::Tensor predicted = x, noise;
  double h = 0, tau = 0;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, predicted, sigmas[i]).denoised;
    predictions.push_back(denoised);
    if (predictions.size() > 4) predictions.erase(predictions.begin());
    auto latest = [&](std::size_t order) { return std::span(predictions).last(order); };
    auto points = [&](std::size_t order) {
      return lambdas.slice(0, static_cast<std::int64_t>(i + 1 - order), static_cast<std::int64_t>(i + 1));
    };
    bool to_zero = sigmas[i + 1] == 0;
    std::size_t predictor = std::min<std::size_t>(3, predictions.size());
    std::size_t corrector = i == 0 || (to_zero && !reevaluate) ? 0 : predictions.size();
    if (sigmas.back() == 0) {  // lower orders towards the end
      predictor = std::min(predictor, sigmas.size() - 2 - i);
      corrector = std::min(corrector, sigmas.size() - 1 - i);
    }
    if (corrector == 0) {
      x = predicted;
    } else {
      at::Tensor weights = adams_weights(points(corrector), at_step(i - 1), at_step(i), alpha(path, sigmas[i]), tau);
      x = (sigmas[i] / sigmas[i - 1] * std::exp(-tau * tau * h)) * x + weighted_sum(latest(corrector), weights);
      if (tau > 0) x = x + noise;
      if (reevaluate) predictions.back() = denoised = context.denoise(x, sigmas[i]).denoised;
    }
    if (to_zero) {
      predicted = denoised;
      continue;
    }
    tau = noisy_from >= sigmas[i + 1] && sigmas[i + 1] >= noisy_to ? 1 : 0;
    h = log_snrs[i + 1] - log_snrs[i];
    at::Tensor weights = adams_weights(points(predictor), at_step(i), at_step(i + 1), alpha(path, sigmas[i + 1]), tau);
    predicted = (sigmas[i + 1] / sigmas[i] * std::exp(-tau * tau * h)) * x + weighted_sum(latest(predictor), weights);
    if (tau > 0) {
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
