#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

namespace {

/// h * phi_1(h) and h * phi_2(h) of exponential integrators.
double phi_1(double h) {
  return std::expm1(h);
}
double phi_2(double h) {
  return (std::expm1(h) - h) / h;
}

/// The step's noise as one Brownian path: unit-free, extended from stage to stage.
class StageNoise {
 public:
  StageNoise(const SampleContext& context, double h, double eta) : context_(context), h_(h), eta_(eta) {}

  /// Adds to `x` the noise of the path from the step's start to the fraction `r` of it. A stage of no length draws too,
  /// for the sake of the order of draws.
  at::Tensor add(const at::Tensor& x, double r, double sigma) {
    if (eta_ == 0) return x;
    double segment = (from_ - r) * h_ * eta_, previous_sigma = sigma_;
    at::Tensor fresh = std::sqrt(-std::expm1(2 * segment)) * draw(context_, x, previous_sigma, sigma);
    noise_ = noise_.defined() ? noise_ * std::exp(segment) + fresh : fresh;
    from_ = r;
    sigma_ = sigma;
    return x + noise_ * sigma;
  }

  void start(double sigma) { sigma_ = sigma; }

 private:
  const SampleContext& context_;
  double h_, eta_, from_ = 0, sigma_ = 0;
  at::Tensor noise_;
};

/// The two-stage solver with its second evaluation at the fraction r; `second_order` weights by phi_2, else phi_1.
at::Tensor two_stages(at::Tensor x, std::span<const double> schedule, const SampleContext& context, double r,
                      double eta, bool second_order) {
  NoisePath path = context.table.path;
  std::vector<double> sigmas = finite_log_snr(schedule, context.table, x.scalar_type());
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double sigma = sigmas[i], next = sigmas[i + 1];
    at::Tensor denoised = evaluate(context, i, x, sigma).denoised;
    if (next == 0) {
      x = denoised;
      continue;
    }
    double lambda = half_log_snr(path, sigma), h = half_log_snr(path, next) - lambda, h_eta = h * (eta + 1);
    double middle = sigma_of_half_log_snr(path, lambda + r * h);
    StageNoise noise(context, h, eta);
    noise.start(sigma);

    at::Tensor stage =
        (middle / sigma * std::exp(-r * h * eta)) * x - (alpha(path, middle) * phi_1(-r * h_eta)) * denoised;
    at::Tensor second = context.denoise(noise.add(stage, r, middle), middle).denoised;

    double b2 = second_order ? phi_2(-h_eta) / r : phi_1(-h_eta) / (2 * r), b1 = phi_1(-h_eta) - b2;
    x = (next / sigma * std::exp(-h * eta)) * x - alpha(path, next) * (b1 * denoised + b2 * second);
    x = noise.add(x, 1, next);
  }
  return x;
}

}  // namespace

/// SEEDS-2 (Gonzalez et al. 2023, arXiv:2305.14267), data prediction, r = 1/2.
at::Tensor seeds_2(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return two_stages(std::move(x), sigmas, context, 0.5, 1, false);
}

/// Exponential Heun in half log-SNR (Hochbruck & Ostermann 2010; the r = 1, phi_2 form of SEEDS-2 without noise).
at::Tensor exp_heun_2_x0(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return two_stages(std::move(x), sigmas, context, 1, 0, true);
}

/// Exponential Heun with SEEDS noise.
at::Tensor exp_heun_2_x0_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return two_stages(std::move(x), sigmas, context, 1, 1, true);
}

/// SEEDS-3 (Gonzalez et al. 2023, arXiv:2305.14267), data prediction, r = 1/3 and 2/3.
at::Tensor seeds_3(at::Tensor x, std::span<const double> schedule, const SampleContext& context) {
  constexpr double r1 = 1 / 3.0, r2 = 2 / 3.0;
  NoisePath path = context.table.path;
  std::vector<double> sigmas = finite_log_snr(schedule, context.table, x.scalar_type());
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    double sigma = sigmas[i], next = sigmas[i + 1];
    at::Tensor denoised = evaluate(context, i, x, sigma).denoised;
    if (next == 0) {
      x = denoised;
      continue;
    }
    double lambda = half_log_snr(path, sigma), h = half_log_snr(path, next) - lambda, h_eta = 2 * h;
    double sigma_1 = sigma_of_half_log_snr(path, lambda + r1 * h);
    double sigma_2 = sigma_of_half_log_snr(path, lambda + r2 * h);
    StageNoise noise(context, h, 1);
    noise.start(sigma);

    at::Tensor stage =
        (sigma_1 / sigma * std::exp(-r1 * h)) * x - (alpha(path, sigma_1) * phi_1(-r1 * h_eta)) * denoised;
    at::Tensor second = context.denoise(noise.add(stage, r1, sigma_1), sigma_1).denoised;

    double a2 = r2 / r1 * phi_2(-r2 * h_eta), a1 = phi_1(-r2 * h_eta) - a2;
    stage = (sigma_2 / sigma * std::exp(-r2 * h)) * x - alpha(path, sigma_2) * (a1 * denoised + a2 * second);
    at::Tensor third = context.denoise(noise.add(stage, r2, sigma_2), sigma_2).denoised;

    double b3 = phi_2(-h_eta) / r2, b1 = phi_1(-h_eta) - b3;
    x = (next / sigma * std::exp(-h)) * x - alpha(path, next) * (b1 * denoised + b3 * third);
    x = noise.add(x, 1, next);
  }
  return x;
}

}  // namespace mgpu::sample
