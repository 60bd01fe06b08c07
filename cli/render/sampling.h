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

/// The noise levels of one run, and the table that they come from.
struct RunSchedule {
  SigmaTable table;
  std::vector<double> sigmas;  ///< first to last, descending to 0
};

/// Throws Error at the `denoise` of an image whose schedule would have more than a million steps, of which its own are
/// the end.
void check_schedules(const Job& job);

/// What the options make of a model's training and a picture's size (shift may depend on it).
RunSchedule run_schedule(const SamplerOptions& options, const Training& training, int width, int height);

/// A further positive conditioning of a run.
struct RunCondition {
  const Conditioning* told = nullptr;
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

/// Whether a run with these options evaluates its negative prompt.
bool evaluates_negative(const SamplerOptions& options);

/// The texts that an entry's runs are told, each a conditioning that a step evaluates: its prompt, its conditions', and
/// the negative prompt where that is evaluated.
std::vector<std::string_view> told_prompts(const ImageJob& image);

/// What decides at which noise levels an entry's runs evaluate the model.
struct LevelsKey {
  std::string_view sampler, scheduler;
  int steps = 0;
  double denoise = 0.0;
  Shift shift;
  int width = 0, height = 0;
  auto operator<=>(const LevelsKey&) const = default;
};
LevelsKey levels_key(const ImageJob& image);

/// The timesteps at which entries' runs evaluate the model, worked out once for those that have them in common. The
/// entries must outlive it.
class RunTimesteps {
 public:
  explicit RunTimesteps(const Training& training) : training_(training) {}
  const std::vector<double>& of(const ImageJob& image);

 private:
  Training training_;
  std::map<LevelsKey, std::vector<double>> known_;
};

/// Hears of every step (from 1) and of its prediction of the clean latents [batch, C, h, w]; may throw to stop.
using OnStep = std::function<void(int step, int steps, const at::Tensor& denoised)>;

/// Samples a run: noise from its seed, then the sampler over the engine's diffusion model -> latents [batch, C, h, w]
/// fp32 on the CPU. Throws Error (an image failed) when a latent is not finite.
at::Tensor sample(Engine& engine, const Run& run, const OnStep& on_step);

}  // namespace mgpu
