#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "core/training.h"
#include "samplers/sampler.h"

namespace mgpu {

/// Which text a model call is conditioned on. Positive is the prompt's own; further positive ones count on from it: 1,
/// 2, ...
enum class Conditioned { Negative = -1, Positive = 0 };

/// Where, how strongly and at which noise levels a positive conditioning counts.
struct Region {
  at::Tensor mask = {};  ///< [1, 1, h, w] in 0..1 on the latent's device; undefined: everywhere
  double strength = 1;
  double from = std::numeric_limits<double>::infinity();  ///< the highest sigma at which it is evaluated
  double to = 0;                                          ///< the lowest
};

/// The model, injected: its predictions for `input` [B, C, h, w] at `timestep` (flow: sigma in 0..1, otherwise an index
/// into the table), one for each of the texts, shaped like input. It sees fp32 on any device and may answer in any
/// floating dtype.
using ModelCall = std::function<std::vector<at::Tensor>(const at::Tensor& input, double timestep,
                                                        std::span<const Conditioned> texts)>;

/// How to turn a model into a denoiser.
struct DenoiserOptions {
  Prediction prediction = Prediction::Velocity;
  double cfg = 1;                           ///< guided = uncond + cfg * (cond - uncond)
  bool needs_uncond = false;                ///< evaluate the negative at any cfg (SamplerRow::needs_uncond)
  at::ScalarType computed_in = at::kFloat;  ///< by the model: what is said of values that are not finite depends on it
  /// One for each positive conditioning, the prompt's own first; empty: that one alone, everywhere. The positive
  /// prediction is their mean, weighted at each latent value by mask * strength, and 0 where all weights are. Each is a
  /// model call of its own. Reference: comfy/samplers.py, calc_cond_batch.
  std::vector<Region> regions = {};
};

/// Whether the negative conditioning is evaluated: at a cfg of 1 (to 1e-9, relative) it is skipped, as in ComfyUI.
bool uses_negative(const DenoiserOptions& options);

/// The denoiser that samplers see: the model's prediction turned into a clean latent, guidance applied. It throws an
/// Error with Exit::ImageFailed when its result is not finite; the message names the step among `sigmas`.
Denoise make_denoiser(ModelCall model, const SigmaTable& table, std::span<const double> sigmas,
                      const DenoiserOptions& options);

/// Throws Error(Exit::ImageFailed) "step 3 of 20: the latent is not finite (12 NaN, 0 Inf)" where `latent` has a value
/// that is not finite; a model that computed in fewer bits than fp32 gets the hint to widen them. One reduction over
/// the latent. `step` counts from 1.
void check_finite(const at::Tensor& latent, int step, int steps, at::ScalarType computed_in = at::kFloat);

/// A latent [1 or B, C, h, w] under `noise` [B, C, h, w] at level `sigma`. Flow: sigma * noise + (1 - sigma) * latent.
/// Otherwise latent + sigma * noise.
at::Tensor at_level(const SigmaTable& table, double sigma, const at::Tensor& noise, const at::Tensor& latent);

/// The x that a sampler starts from at `sigma`: at_level, but on the variance exploding path latent + noise *
/// sqrt(1 + sigma^2) where sigma is sigma_max (to 1e-5, relative) or above.
at::Tensor noised_latent(const SigmaTable& table, double sigma, const at::Tensor& noise, const at::Tensor& latent);

/// The latent of the x that a sampler ended with at `sigma`: x / (1 - sigma) on the flow path, else x.
at::Tensor final_latent(const SigmaTable& table, double sigma, const at::Tensor& x);

}  // namespace mgpu
