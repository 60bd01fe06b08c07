#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "samplers/sampler.h"

/// What the samplers share. Scalars are doubles: differences of fp32 sigmas are exact in them, and each is rounded once
/// when it meets an fp32 tensor.
namespace mgpu::steps {

/// Evaluates the model at the start of a step and tells the callback.
Denoised evaluate(const SampleContext& context, std::size_t step, const at::Tensor& x, double sigma);

/// The derivative dx/dsigma of Karras et al. 2022: (x - denoised) / sigma.
at::Tensor derivative(const at::Tensor& x, double sigma, const at::Tensor& denoised);

/// One draw of the context's noise with x's dtype, on x's device.
at::Tensor draw(const SampleContext& context, const at::Tensor& x, double sigma, double next);

/// An ancestral step: deterministic to `down`, then x = scale * x + up * noise.
struct Ancestral {
  double down = 0, up = 0, scale = 1;
};

/// Splits the step from sigma to next (eta = 1). Variance exploding: k-diffusion's split, scale 1. Flow: signal and
/// noise sum to the path's at `next`.
Ancestral ancestral(NoisePath path, double sigma, double next);

/// The variance-exploding split alone; eta scales the noise, 0 is a deterministic step.
Ancestral ancestral_exploding(double sigma, double next, double eta = 1);

/// The share of the latent in x: 1, or 1 - sigma on the flow path.
double alpha(NoisePath path, double sigma);

/// Half the log signal-to-noise ratio, log(alpha / sigma), and back.
double half_log_snr(NoisePath path, double sigma);
double sigma_of_half_log_snr(NoisePath path, double half_log_snr);

/// The sigmas with a first one of 1 on the flow path, where log-SNR is infinite, moved to ComfyUI's 0.01 % of the way
/// and rounded to `dtype`, x's own; levels between the two are left out, so that the rest still descends.
std::vector<double> finite_log_snr(std::span<const double> sigmas, const SigmaTable& table, at::ScalarType dtype);

/// The geometric mean: halfway in log sigma.
double log_midpoint(double a, double b);

}  // namespace mgpu::steps
