#include <algorithm>
#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

namespace {

/// A level as a variance-preserving process sees it: alpha^2 + sigma^2 = 1.
struct Level {
  double alpha, sigma, lambda;
};

Level level_of(double sigma) {
  double alpha = 1 / std::sqrt(1 + sigma * sigma);
  return {alpha, sigma * alpha, -std::log(sigma)};
}

/// Solves the Vandermonde system of UniPC's coefficients: sum over k of ratio_k^row * rho_k = right_row.
std::vector<double> solve_rhos(std::span<const double> ratios, std::span<const double> right) {
  auto n = static_cast<std::int64_t>(ratios.size());
  at::Tensor points = at::tensor(at::ArrayRef<double>(ratios.data(), ratios.size()), at::kDouble);
  at::Tensor b = at::tensor(at::ArrayRef<double>(right.data(), right.size()), at::kDouble);
  at::Tensor rhos = at::linalg_solve(points.pow(at::arange(n, at::kDouble).unsqueeze(1)), b);
  return {rhos.const_data_ptr<double>(), rhos.const_data_ptr<double>() + n};
}

/// A past evaluation.
struct Evaluation {
  Level level;
  at::Tensor denoised;
};

/// One step of UniPC-B(h) in data prediction, from past.back() to `to`: predictor, then, where `denoise` is given, the
/// corrector with the model's answer to the prediction. Returns x and that answer.
std::pair<at::Tensor, at::Tensor> step_to(const at::Tensor& x, std::span<const Evaluation> past, const Level& to,
                                          bool bh2, const std::function<at::Tensor(const at::Tensor&)>& denoise) {
  std::size_t order = past.size();
  const Evaluation& last = past.back();
  double h = to.lambda - last.level.lambda, phi = std::expm1(-h), scale = bh2 ? phi : -h;
  std::vector<double> ratios, right;
  std::vector<at::Tensor> differences;
  for (std::size_t k = 1; k < order; ++k) {
    const Evaluation& older = past[order - 1 - k];
    ratios.push_back((older.level.lambda - last.level.lambda) / h);
    differences.push_back((older.denoised - last.denoised) / ratios.back());
  }
  ratios.push_back(1);
  double term = phi / -h - 1, factorial = 1;
  for (std::size_t k = 1; k <= order; ++k) {
    right.push_back(term * factorial / scale);
    factorial *= static_cast<double>(k + 1);
    term = term / -h - 1 / factorial;
  }
  auto combine = [&](std::span<const double> rhos) {
    at::Tensor sum = at::zeros_like(x);
    for (std::size_t k = 0; k < differences.size(); ++k) sum = sum + differences[k] * rhos[k];
    return sum;
  };
  at::Tensor base = (to.sigma / last.level.sigma) * x - (to.alpha * phi) * last.denoised, predicted = base;
  if (order > 1) {  // order 2 has the paper's simplified coefficient
    std::vector<double> rhos = order == 2
                                   ? std::vector{0.5}
                                   : solve_rhos(std::span(ratios).first(order - 1), std::span(right).first(order - 1));
    predicted = base - (to.alpha * scale) * combine(rhos);
  }
  if (!denoise) return {predicted, {}};
  std::vector<double> rhos = order == 1 ? std::vector{0.5} : solve_rhos(ratios, right);
  at::Tensor answer = denoise(predicted);
  return {base - (to.alpha * scale) * (combine(rhos) + rhos.back() * (answer - last.denoised)), answer};
}

/// UniPC, multistep of order up to 3 on x / sqrt(1 + sigma^2), a final 0 replaced by 0.001, the last step of order 1
/// and uncorrected. One step is one of order 1 (ComfyUI leaves the noise as it was).
at::Tensor unified(at::Tensor x, std::span<const double> schedule, const SampleContext& context, bool bh2) {
  if (schedule.size() <= 1) return x;
  std::vector<double> sigmas(schedule.begin(), schedule.end());
  // Steps so many that the level before lies about there too: below it.
  const double lowest = sigmas[sigmas.size() - 2];
  if (sigmas.back() == 0) sigmas.back() = lowest > 0.002 ? 0.001f : lowest / 30;
  std::size_t steps = sigmas.size() - 1, order = std::clamp<std::size_t>(steps - 1, 1, 3);
  Level level = level_of(sigmas[0]);
  at::Tensor scaled = x * level.alpha;
  std::vector<Evaluation> past{{level, evaluate(context, 0, x, sigmas[0]).denoised}};
  for (std::size_t i = 1; i <= steps; ++i) {
    level = level_of(sigmas[i]);
    auto model = [&](const at::Tensor& state) { return evaluate(context, i, state / level.alpha, sigmas[i]).denoised; };
    std::size_t used = std::min({order, i, steps + 1 - i});
    auto recent = std::span<const Evaluation>(past).last(std::min(used, past.size()));
    if (i == steps) {
      scaled = step_to(scaled, recent, level, bh2, nullptr).first;
    } else {
      at::Tensor answer;
      std::tie(scaled, answer) = step_to(scaled, recent, level, bh2, model);
      past.push_back({level, answer});
      if (past.size() > order) past.erase(past.begin());
    }
  }
  x = scaled / level.alpha;
  // ComfyUI then takes the final 0.001 for the sigma that its flow models end at.
  return schedule.back() == 0 ? x / alpha(context.table.path, sigmas.back()) : x;
}

}  // namespace

/// UniPC with B(h) = h (Zhao et al. 2023, arXiv:2302.04867).
at::Tensor uni_pc(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return unified(std::move(x), sigmas, context, false);
}

/// UniPC with B(h) = e^h - 1.
at::Tensor uni_pc_bh2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return unified(std::move(x), sigmas, context, true);
}

}  // namespace mgpu::sample
