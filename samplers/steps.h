#pragma once

#include <ATen/ATen.h>

#include "samplers/sampler.h"

/// What the samplers share. Scalars are doubles: differences of fp32 sigmas are exact in them, and each is rounded once
/// when it meets an fp32 tensor.
namespace mgpu::steps {

/// The derivative dx/dsigma of Karras et al. 2022: (x - denoised) / sigma.
at::Tensor derivative(const at::Tensor& x, double sigma, const at::Tensor& denoised);

/// One draw of the context's noise with x's dtype, on x's device.
at::Tensor draw(const SampleContext& context, const at::Tensor& x, double sigma, double next);

/// An ancestral step: deterministic to `down`, then x = scale * x + up * noise. Scale is 1 on the variance-exploding
/// path.
struct Ancestral {
  double down = 0, up = 0, scale = 1;
};

/// Splits the step from sigma to next (eta = 1): variance exploding as in Karras et al.'s k-diffusion, flow so that
/// signal and noise sum to the path's at `next`.
Ancestral ancestral(NoisePath path, double sigma, double next);
/// The variance-exploding split alone, with `eta` scaling the noise.
Ancestral ancestral_exploding(double sigma, double next, double eta = 1);

/// Half the log signal-to-noise ratio, log(alpha / sigma), and back.
double half_log_snr(NoisePath path, double sigma);
double sigma_of_half_log_snr(NoisePath path, double half_log_snr);

/// The sigmas with a first one of 1 on the flow path, where log-SNR is infinite, moved to ComfyUI's 0.01 % of the way.
std::vector<double> finite_log_snr(std::span<const double> sigmas, const SigmaTable& table);

/// Calls the context's callback where there is one.
void report(const SampleContext& context, std::size_t step, double sigma, const at::Tensor& x,
            const at::Tensor& denoised);

}  // namespace mgpu::steps
