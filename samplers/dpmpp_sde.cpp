#include <cmath>

#include "samplers/functions.h"
#include "samplers/steps.h"

namespace mgpu::sample {
using namespace steps;

/// DPM-Solver++ (SDE), singlestep with r = 1/2 (k-diffusion's, after Lu et al. 2022, arXiv:2211.01095): an ancestral
/// half step, then an ancestral whole step, both in half log-SNR.
at::Tensor dpmpp_sde(at::Tensor x, std::span<const double> schedule, const SampleContext& context) {
  NoisePath path = context.table.path;
  std::vector<double> sigmas = finite_log_snr(schedule, context.table, x.scalar_type());
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, x, sigmas[i]).denoised, direction = denoised;
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    double lambda = half_log_snr(path, sigmas[i]), alpha_s = alpha(path, sigmas[i]);
    auto ancestral_to = [&](double target_lambda, double target_sigma) {
      Ancestral split = ancestral_exploding(std::exp(-lambda), std::exp(-target_lambda));
      double h = -std::log(split.down) - lambda, alpha_t = alpha(path, target_sigma);
      return (alpha_t / alpha_s * std::exp(-h)) * x - (alpha_t * std::expm1(-h)) * direction +
             alpha_t * draw(context, x, sigmas[i], target_sigma) * split.up;
    };
    double next_lambda = half_log_snr(path, sigmas[i + 1]), middle = lambda + (next_lambda - lambda) / 2;
    double middle_sigma = sigma_of_half_log_snr(path, middle);
    at::Tensor halfway = ancestral_to(middle, middle_sigma);
    direction = context.denoise(halfway, middle_sigma).denoised;
    x = ancestral_to(next_lambda, sigmas[i + 1]);
  }
  return x;
}

namespace {

/// The multistep solvers of the reverse SDE in half log-SNR, eta = 1: the exponential step with the latest prediction,
/// a correction by what the earlier ones tell, and noise.
using Correction = at::Tensor (*)(double h, std::span<const double> past_h, const at::Tensor& denoised,
                                  std::span<const at::Tensor> past);

at::Tensor multistep_sde(at::Tensor x, std::span<const double> schedule, const SampleContext& context,
                         Correction correction) {
  NoisePath path = context.table.path;
  std::vector<double> sigmas = finite_log_snr(schedule, context.table, x.scalar_type()), past_h;
  std::vector<at::Tensor> past;  // the latest first, at most two
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    at::Tensor denoised = evaluate(context, i, x, sigmas[i]).denoised;
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    double h = half_log_snr(path, sigmas[i + 1]) - half_log_snr(path, sigmas[i]);
    double alpha_t = alpha(path, sigmas[i + 1]);
    x = (sigmas[i + 1] / sigmas[i] * std::exp(-h)) * x - (alpha_t * std::expm1(-2 * h)) * denoised;
    if (!past.empty()) x = x + alpha_t * correction(h, past_h, denoised, past);
    x = x + draw(context, x, sigmas[i], sigmas[i + 1]) * (sigmas[i + 1] * std::sqrt(-std::expm1(-2 * h)));
    past.insert(past.begin(), denoised);
    past_h.insert(past_h.begin(), h);
    if (past.size() > 2) past.pop_back(), past_h.pop_back();
  }
  return x;
}

/// h * phi_2 of exponential integrators, for the doubled step of the SDE.
double phi_2(double h) {
  return std::expm1(-2 * h) / (2 * h) + 1;
}

}  // namespace

/// DPM-Solver++(2M) SDE, midpoint form (k-diffusion's, after arXiv:2211.01095).
at::Tensor dpmpp_2m_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return multistep_sde(std::move(x), sigmas, context, [](double h, auto past_h, const at::Tensor& denoised, auto past) {
    return (-0.5 * std::expm1(-2 * h) * h / past_h[0]) * (denoised - past[0]);
  });
}

/// DPM-Solver++(2M) SDE, Heun form.
at::Tensor dpmpp_2m_sde_heun(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return multistep_sde(std::move(x), sigmas, context, [](double h, auto past_h, const at::Tensor& denoised, auto past) {
    return (phi_2(h) * h / past_h[0]) * (denoised - past[0]);
  });
}

/// DPM-Solver++(3M) SDE (k-diffusion's, after arXiv:2211.01095): second order until two predictions are known.
at::Tensor dpmpp_3m_sde(at::Tensor x, std::span<const double> sigmas, const SampleContext& context) {
  return multistep_sde(std::move(x), sigmas, context, [](double h, auto past_h, const at::Tensor& denoised, auto past) {
    double r0 = past_h[0] / h;
    at::Tensor newer = (denoised - past[0]) / r0;
    if (past.size() < 2) return phi_2(h) * newer;
    double r1 = past_h[1] / h, phi_3 = phi_2(h) / (2 * h) - 0.5;
    at::Tensor older = (past[0] - past[1]) / r1;
    at::Tensor curvature = (newer - older) / (r0 + r1);
    return phi_2(h) * (newer + curvature * r0) - phi_3 * curvature;
  });
}

}  // namespace mgpu::sample
