#include <algorithm>
#include <array>
#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// Midpoint steps in log sigma, after DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927) and Karras et al. 2022.
at::Tensor dpm_2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double next = sigmas[i + 1];
    at::Tensor d = derivative(x, sigmas[i], evaluate(context, i, x, sigmas[i]).denoised);
    if (next > 0) {
      double middle = log_midpoint(sigmas[i], next);
      at::Tensor halfway = x + d * (middle - sigmas[i]);
      d = derivative(halfway, middle, context.denoise(halfway, middle).denoised);
    }
    x = x + d * (next - sigmas[i]);
  }
  return x;
}

/// dpm_2 to below the next level, and fresh noise back up to it.
at::Tensor dpm_2_ancestral(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor d = derivative(x, sigmas[i], evaluate(context, i, x, sigmas[i]).denoised);
    auto [down, up, scale] = ancestral(context.table.path, sigmas[i], sigmas[i + 1]);
    if (down > 0) {
      double middle = log_midpoint(sigmas[i], down);
      at::Tensor halfway = x + d * (middle - sigmas[i]);
      d = derivative(halfway, middle, context.denoise(halfway, middle).denoised);
    }
    x = x + d * (down - sigmas[i]);
    if (down > 0) x = scale * x + draw(context, x, sigmas[i], sigmas[i + 1]) * up;
  }
  return x;
}

namespace {

/// DPM-Solver-1, -2 and -3 (arXiv:2206.00927, algorithms 1 and 2) over one step in t = -log sigma. Noise predictions
/// are kept, since the orders share them.
class DpmSolverStep {
 public:
  DpmSolverStep(const SampleContext& context, at::Tensor x, double t, double next, at::Tensor denoised)
      : context_(context), x_(std::move(x)), t_(t), h_(next - t), sigma_(std::exp(-next)) {
    eps_ = derivative(x_, std::exp(-t), denoised);
  }

  at::Tensor first() const { return x_ - (sigma_ * std::expm1(h_)) * eps_; }

  at::Tensor second(double r) {
    return first() - (sigma_ / (2 * r) * std::expm1(h_)) * (eps_at(r, x_ - slope(r) * eps_) - eps_);
  }

  at::Tensor third() {
    constexpr double r1 = 1 / 3.0, r2 = 2 / 3.0;
    at::Tensor change = eps_at(r1, x_ - slope(r1) * eps_) - eps_;
    double bend = std::exp(-t_ - r2 * h_) * (r2 / r1) * (std::expm1(r2 * h_) / (r2 * h_) - 1);
    at::Tensor u = x_ - slope(r2) * eps_ - bend * change;
    at::Tensor further = derivative(u, std::exp(-t_ - r2 * h_), context_.denoise(u, std::exp(-t_ - r2 * h_)).denoised);
    return first() - (sigma_ / r2 * (std::expm1(h_) / h_ - 1)) * (further - eps_);
  }

 private:
  double slope(double r) const { return std::exp(-t_ - r * h_) * std::expm1(r * h_); }

  /// The noise prediction at the fraction r of the step; kept, as there is one r a step.
  const at::Tensor& eps_at(double r, const at::Tensor& u) {
    double sigma = std::exp(-t_ - r * h_);
    if (!eps_r_.defined()) eps_r_ = derivative(u, sigma, context_.denoise(u, sigma).denoised);
    return eps_r_;
  }

  const SampleContext& context_;
  at::Tensor x_, eps_, eps_r_;
  double t_, h_, sigma_;
};

/// The last level that is not 0: where the DPM solvers stop.
double lowest(std::span<const double> sigmas) {
  return sigmas.back() > 0 ? sigmas.back() : sigmas[sigmas.size() - 2];
}

}  // namespace

/// DPM-Solver-fast (arXiv:2206.00927, appendix): as many evaluations as steps, in runs of order 3, uniform in log sigma
/// from the first to the last non-zero level.
at::Tensor dpm_fast(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  if (sigmas.size() <= 1) return x;
  auto evaluations = static_cast<int>(sigmas.size()) - 1;
  std::vector<int> orders(static_cast<std::size_t>(evaluations / 3), 3);
  if (evaluations % 3 == 0) {
    orders.back() = 2;
    orders.push_back(1);
  } else {
    orders.push_back(evaluations % 3);
  }
  double start = -std::log(sigmas[0]), end = -std::log(lowest(sigmas));
  double h = (end - start) / static_cast<double>(orders.size());
  for (std::size_t i = 0; i < orders.size(); ++i) {
    double t = start + h * static_cast<double>(i), next = start + h * static_cast<double>(i + 1);
    DpmSolverStep step(context, x, t, next, evaluate(context, i, x, std::exp(-t)).denoised);
    x = orders[i] == 1 ? step.first() : orders[i] == 2 ? step.second(0.5) : step.third();
  }
  return x;
}

/// DPM-Solver-23 with adaptive steps (arXiv:2206.00927, appendix C): the step follows the difference between orders 2
/// and 3 over the whole batch; the schedule gives only its ends. Constants are k-diffusion's.
at::Tensor dpm_adaptive(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  if (sigmas.size() <= 1) return x;
  constexpr double relative = 0.05, absolute = 0.0078, safety = 0.81;
  double t = -std::log(sigmas[0]), end = -std::log(lowest(sigmas)), h = 0.05;
  at::Tensor previous = x;
  for (std::size_t i = 0; t < end - 1e-5; ++i) {
    double next = std::min(end, t + h);
    DpmSolverStep step(context, x, t, next, evaluate(context, i, x, std::exp(-t)).denoised);
    at::Tensor low = step.second(1 / 3.0), high = step.third();
    at::Tensor allowed = (relative * at::maximum(low.abs(), previous.abs())).clamp_min(absolute);
    // Row by row, then over the rows: LibTorch's sum of all values at once depends on the number of threads.
    const at::Tensor squares = ((low - high) / allowed).square().sum(-1, /*keepdim=*/false, at::kDouble);
    double error = std::sqrt(squares.sum().item<double>() / static_cast<double>(x.numel()));
    double factor = 1 + std::atan(std::cbrt(1 / (error + 1e-8)) - 1);
    h *= factor;
    if (factor < safety && t + h > t) continue;  // a step cannot become shorter than what moves t
    previous = low;
    x = high;
    t = next;
  }
  return x;
}

}  // namespace mgpu::sample
