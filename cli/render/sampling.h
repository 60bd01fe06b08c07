#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string_view>
#include <vector>

#include "cli/job/job.h"
#include "core/family.h"
#include "core/text/conditioning.h"
#include "samplers/sampler.h"
#include "samplers/schedule.h"
#include "shard/engine.h"

namespace mgpu {

/// A further positive conditioning of a run.
struct RunCondition {
  const Conditioning* conditioning = nullptr;
  at::Tensor mask;        ///< [1, 1, h, w] in 0..1 at the latent's size; undefined: everywhere
  double strength = 1.0;  ///< times the mask; the prompt's own counts 1 everywhere
  double start = 0.0;     ///< share of the whole schedule (of denoise 1) at which it begins
  double end = 1.0;
};

/// One run: the pictures that come from one draw of one seed.
struct Run {
  std::uint64_t seed = 0;
  int batch = 1;
  int width = 0;
  int height = 0;
  const SamplerOptions* options = nullptr;
  const Conditioning* positive = nullptr;
  const Conditioning* negative = nullptr;  ///< null where it is not evaluated
  std::vector<RunCondition> further = {};
  at::Tensor latent = {};    ///< of the init image [1, C, h, w]; undefined: empty, which is zeros
  at::Tensor mask = {};      ///< what of it is drawn anew [1, 1, h, w]; undefined: all
  at::Tensor channels = {};  ///< [1, 1 + C, h, w] beside the latent, for inpainting models
};

/// Hears of every step (from 1) and of its prediction of the clean latents [batch, C, h, w]; may throw to stop.
using OnStep = std::function<void(int step, int steps, const at::Tensor& denoised)>;

/// Samples a run: noise from its seed, then the sampler over the engine's diffusion model -> latents [batch, C, h, w]
/// fp32 on the CPU. Throws Error (an image failed) when a latent is not finite.
at::Tensor sample(Engine& engine, const Run& run, const OnStep& on_step);

}  // namespace mgpu
