#pragma once

#include <map>
#include <string_view>
#include <vector>

#include "cli/job/job.h"
#include "core/training.h"
#include "samplers/denoiser.h"
#include "samplers/sampler.h"
#include "samplers/schedule.h"

namespace mgpu {

/// The row of a job's sampler.
const SamplerRow& sampler_of(const SamplerOptions& options);

/// What a denoiser needs to know of a job's sampler: cfg, and whether the negative prompt is needed whatever cfg says.
DenoiserOptions denoiser_options(const SamplerOptions& options);

/// The noise levels of one run, and the table that they come from.
struct RunSchedule {
  SigmaTable table;
  std::vector<double> sigmas;  ///< first to last, descending to 0
};

/// What the options make of a model's training and a picture's size (shift may depend on it).
RunSchedule run_schedule(const SamplerOptions& options, const Training& training, int width, int height);

/// The timesteps at which the sampler evaluates the model, each once.
std::vector<double> evaluated_timesteps(const SamplerOptions& options, const RunSchedule& schedule);

/// Whether a run with these options evaluates its negative prompt.
bool evaluates_negative(const SamplerOptions& options);

/// The texts that an entry's runs are told, each a conditioning that a step evaluates: its prompt, its conditions', and
/// the negative prompt where that is evaluated.
std::vector<std::string_view> run_prompts(const ImageJob& image);

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

}  // namespace mgpu
