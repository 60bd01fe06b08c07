#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace mgpu {

/// One evaluation of the model at noise level sigma, guidance applied. Both are predictions of the clean latent, shaped like x.
struct Denoised {
  at::Tensor denoised;
  at::Tensor uncond;  ///< the unconditional part alone (cfg_pp samplers); equals `denoised` where there is no negative
};
using Denoise = std::function<Denoised(const at::Tensor& x, double sigma)>;

/// How signal and noise mix along the schedule: x = alpha(sigma) * latent + sigma * noise.
enum class NoisePath {
  VarianceExploding,  ///< alpha = 1 (SD 1.x, 2.x, SDXL)
  Flow,               ///< alpha = 1 - sigma (Flux, SD3)
};

/// Standard normal noise shaped like x for the step from `sigma` to `next`; called once per draw, in order.
using StepNoise = std::function<at::Tensor(double sigma, double next)>;

/// Called after each evaluation: step from 0, the x that went in and what came out.
using StepCallback = std::function<void(int step, double sigma, const at::Tensor& x, const at::Tensor& denoised)>;

/// What a sampler works with; everything random and everything visible is injected.
struct SampleContext {
  Denoise denoise;
  NoisePath path = NoisePath::Flow;
  StepNoise noise;
  StepCallback callback;
};

/// Integrates x from sigmas.front() to sigmas.back(). x [B, C, h, w] in fp32 or fp64.
using SamplerFunction = at::Tensor (*)(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

/// One row of the registry: a sampler is a function and a row.
struct SamplerRow {
  std::string_view name;     ///< as in ComfyUI
  SamplerFunction sample;
  bool step_noise = false;   ///< draws noise at each step
  bool extra_step = false;   ///< ComfyUI runs it over one step more and drops the last but one sigma
  std::string_view summary;  ///< one line for the table in the README: what it is, its paper
};

/// All samplers, in the README's order.
std::span<const SamplerRow> samplers();

/// The sampler of that name (ComfyUI's, or an A1111 spelling), or null.
const SamplerRow* find_sampler(std::string_view name);

}  // namespace mgpu
