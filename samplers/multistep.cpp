#include <array>
#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

namespace {

/// The weights of an Adams-Bashforth step from sigmas[i] to sigmas[i + 1], the latest derivative first.
using Weights = std::function<std::vector<double>(std::size_t i, std::size_t order)>;

/// Linear multistep integration over the last `max_order` derivatives; a step to 0 takes the denoised latent.
at::Tensor adams_bashforth(at::Tensor x, std::span<const double> sigmas, const SampleContext& context,
                           std::size_t max_order, const Weights& weights) {
  std::vector<at::Tensor> past;  // the latest first
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, x, sigmas[i]).denoised;
    past.insert(past.begin(), derivative(x, sigmas[i], denoised));
    if (past.size() > max_order) past.pop_back();
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    std::vector<double> w = weights(i, past.size());
    at::Tensor sum = past[0] * w[0];
    for (std::size_t j = 1; j < past.size(); ++j) sum = sum + past[j] * w[j];
    x = x + sum;
  }
  return x;
}

/// The j-th Lagrange polynomial over points[i], points[i - 1], ... (`order` of them), at t.
double lagrange(std::span<const double> points, std::size_t i, std::size_t order, std::size_t j, double t) {
  double product = 1;
  for (std::size_t k = 0; k < order; ++k)
    if (k != j) product *= (t - points[i - k]) / (points[i - j] - points[i - k]);
  return product;
}

/// Exact integrals of the Lagrange polynomials of up to 4 points over the next step: Gauss-Legendre of 2 points.
std::vector<double> lagrange_integrals(std::span<const double> points, std::size_t i, std::size_t order) {
  double middle = (points[i] + points[i + 1]) / 2, half = (points[i + 1] - points[i]) / 2, offset = half / std::sqrt(3);
  std::vector<double> weights;
  for (std::size_t j = 0; j < order; ++j)
    weights.push_back(
        half * (lagrange(points, i, order, j, middle - offset) + lagrange(points, i, order, j, middle + offset)));
  return weights;
}

}  // namespace

/// Linear multistep of order 4 in sigma (k-diffusion's, after Karras et al.'s formulation of PLMS).
at::Tensor lms(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return adams_bashforth(std::move(x), sigmas, context, 4,
                         [&](std::size_t i, std::size_t order) { return lagrange_integrals(sigmas, i, order); });
}

/// Improved PNDM (Zhang & Chen 2022, arXiv:2204.13902): Adams-Bashforth with the weights of equal steps.
at::Tensor ipndm(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  static const std::array<std::vector<double>, 4> equal_steps{
      {{1}, {3 / 2., -1 / 2.}, {23 / 12., -16 / 12., 5 / 12.}, {55 / 24., -59 / 24., 37 / 24., -9 / 24.}}};
  return adams_bashforth(std::move(x), sigmas, context, 4, [&](std::size_t i, std::size_t order) {
    std::vector<double> weights = equal_steps[order - 1];
    for (double& w : weights) w *= sigmas[i + 1] - sigmas[i];
    return weights;
  });
}

/// iPNDM with variable steps, as zju-pi's diff-sampler (Apache-2.0) states its weights up to order 4.
at::Tensor ipndm_v(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return adams_bashforth(std::move(x), sigmas, context, 4, [&](std::size_t i, std::size_t order) {
    auto step = [&](std::size_t back) { return sigmas[i + 1 - back] - sigmas[i - back]; };
    double h = step(0);
    if (order == 1) return std::vector<double>{h};
    double h1 = step(1), a = h / h1;
    if (order == 2) return std::vector<double>{h * (2 + a) / 2, -h * a / 2};
    double h2 = step(2), b = h1 / h2;
    double t1 = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2;
    if (order == 3) return std::vector<double>{h * ((2 + a) / 2 + t1), h * (-a / 2 - (1 + b) * t1), h * t1 * b};
    double h3 = step(3), c = h1 * (h1 + h2) / (h2 * (h2 + h3));
    double t2 = ((1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))) *
                (h * (h + h1) * (h + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3));
    return std::vector<double>{h * ((2 + a) / 2 + t1 + t2), h * (-a / 2 - (1 + b) * t1 - (1 + b + c) * t2),
                               h * (t1 * b + (b + c * (1 + h2 / h3)) * t2), -h * t2 * c * b};
  });
}

/// DEIS, time-Adams-Bashforth of order 3 (Zhang & Chen 2022, arXiv:2204.13902), with diff-sampler's map from sigma to
/// the time of a VP process over sigma 0.002..80 and its sum over 10000 points.
at::Tensor deis(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  constexpr double first = 1e-3, points = 10000;
  const double low = std::log(0.002 * 0.002 + 1), high = std::log(80. * 80. + 1);
  const double slope = 2 * (low / first - high) / (first - 1), start = high - slope / 2;  // beta(t) = start + slope * t
  std::vector<double> times;
  for (double sigma : sigmas)
    times.push_back((std::sqrt(start * start + 2 * slope * std::log(sigma * sigma + 1)) - start) / slope);
  return adams_bashforth(std::move(x), sigmas, context, 3, [&](std::size_t i, std::size_t order) {
    if (order == 1) return std::vector<double>{sigmas[i + 1] - sigmas[i]};
    std::vector<double> weights(order, 0.0);
    double span = times[i + 1] - times[i];
    for (double k = 0; k < points; ++k) {
      double t = times[i] + span * k / (points - 1);
      double signal = std::exp(-0.5 * t * t * slope - t * start);
      double integrand = 0.5 * (t * slope + start) / std::sqrt(signal * (1 - signal));
      for (std::size_t j = 0; j < order; ++j) weights[j] += integrand * lagrange(times, i, order, j, t);
    }
    for (double& w : weights) w *= span / points;
    return weights;
  });
}

namespace {

/// Gradient estimation (Permenter & Yuan 2023, arXiv:2306.04848), gamma = 2: euler, with the change of the derivative
/// once more.
at::Tensor estimate_gradient(at::Tensor x, std::span<const double> sigmas, const SampleContext& context, bool cfg_pp) {
  at::Tensor previous;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    auto [denoised, uncond] = evaluate(context, i, x, sigmas[i]);
    at::Tensor d = derivative(x, sigmas[i], cfg_pp ? uncond : denoised);
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    double dt = sigmas[i + 1] - sigmas[i];
    x = cfg_pp ? denoised + d * sigmas[i + 1] : x + d * dt;
    if (previous.defined()) x = x + (d - previous) * dt;
    previous = d;
  }
  return x;
}

}  // namespace

/// Gradient estimation.
at::Tensor gradient_estimation(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return estimate_gradient(std::move(x), sigmas, context, false);
}

/// Gradient estimation with CFG++ (arXiv:2406.08070).
at::Tensor gradient_estimation_cfg_pp(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return estimate_gradient(std::move(x), sigmas, context, true);
}

}  // namespace mgpu::sample
