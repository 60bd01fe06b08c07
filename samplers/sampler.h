#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "samplers/schedule.h"

namespace mgpu {

/// One evaluation of the model at noise level sigma, guidance applied. Both are predictions of the clean latent, shaped
/// like x.
struct Denoised {
  at::Tensor denoised;
  at::Tensor uncond;  ///< the unconditional part alone (cfg_pp samplers); `denoised` itself where there is no negative
};
using Denoise = std::function<Denoised(const at::Tensor& x, double sigma)>;

/// Standard normal noise shaped like x for the step from `sigma` to `next`; called once per draw, in order. It may come
/// in another dtype or from another device than x's.
using StepNoise = std::function<at::Tensor(double sigma, double next)>;

/// Called once a step, after its first evaluation: step from 0, its sigma, the x that went in and what came out.
using StepCallback = std::function<void(int step, double sigma, const at::Tensor& x, const at::Tensor& denoised)>;

/// What a sampler works with; everything random and everything visible is injected.
struct SampleContext {
  const SigmaTable& table;  ///< the noise path and its levels; outlives the run
  Denoise denoise;
  StepNoise noise = nullptr;        ///< needed by rows whose step_noise is not None
  StepCallback callback = nullptr;  ///< may be empty
};

/// Integrates x from sigmas.front() to sigmas.back(). x [B, C, h, w] in fp32 or fp64; sigmas descend, the last may be
/// 0.
using SamplerFunction = at::Tensor (*)(at::Tensor x, std::span<const double> sigmas, const SampleContext& context);

/// Where a sampler's step noise comes from.
enum class NoiseSource {
  None,         ///< deterministic
  Independent,  ///< a fresh draw each time
  Brownian,     ///< increments of one Brownian path over sigma
};

/// One row of the registry: a sampler is a function and a row.
struct SamplerRow {
  std::string_view name;  ///< as in ComfyUI
  SamplerFunction sample;
  std::string_view summary;  ///< one line for the table in samplers/README.md: what it is, its paper
  NoiseSource step_noise = NoiseSource::None;
  bool needs_uncond = false;    ///< cfg_pp: the negative is evaluated at any cfg
  bool extra_step = false;      ///< ComfyUI runs it over one step more and drops the last but one sigma
  bool own_mask_noise = false;  ///< ComfyUI's ddim keeps what a mask protects under another draw, of seed + 1
};

/// The noise levels at which a sampler evaluates the model over these sigmas, each once, in order: found by a run over
/// nothing. A sampler with steps of its own asks for others once it sees a picture.
std::vector<double> evaluated_sigmas(const SamplerRow& sampler, std::span<const double> sigmas,
                                     const SigmaTable& table);

/// All samplers, in ComfyUI's order.
std::span<const SamplerRow> samplers();

/// The sampler of that name, or null.
const SamplerRow* find_sampler(std::string_view name);

/// What a name stands for.
struct SamplerChoice {
  const SamplerRow* sampler = nullptr;
  const ScheduleRow* schedule = nullptr;  ///< where the name holds one ("DPM++ 2M Karras"), else null
  bool philox = false;                    ///< ComfyUI's `*_gpu`: step noise as an NVIDIA GPU draws it
};

/// The sampler of that name, ComfyUI's or A1111's ("DPM++ 2M Karras", in any case), with the schedule it implies.
std::optional<SamplerChoice> choose_sampler(std::string_view name);

/// The samplers and the schedules as two Markdown tables for samplers/README.md.
std::string registry_table();

}  // namespace mgpu
