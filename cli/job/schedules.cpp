#include "cli/job/schedules.h"

#include <algorithm>

#include "core/error.h"

namespace mgpu {
namespace {

SigmaTable sigma_table(const Shift& shift, const Training& training, int width, int height) {
  if (training.prediction != Prediction::Velocity)
    return training.zero_terminal ? zero_terminal_sigmas() : stable_diffusion_sigmas();
  switch (shift.kind) {
    case Shift::Kind::Constant:
      return flux_dev_sigmas(shift.value);
    case Shift::Kind::ByResolution:
      return flux_dev_sigmas(flux_mu(shift.base, shift.max, width, height));
    case Shift::Kind::Auto:
      break;
  }
  return training.mu > 0.0 ? flux_dev_sigmas(training.mu) : flux_schnell_sigmas();
}

}  // namespace

const SamplerRow& sampler_of(const SamplerOptions& options) {
  const SamplerRow* row = find_sampler(*options.name);
  MGPU_CHECK(row, "sampler {} was accepted and is not there", *options.name);
  return *row;
}

DenoiserOptions denoiser_options(const SamplerOptions& options) {
  return {.cfg = *options.cfg, .needs_uncond = sampler_of(options).needs_uncond};
}

std::vector<double> evaluated_timesteps(const SamplerOptions& options, const RunSchedule& schedule) {
  std::vector<double> out;
  for (const double sigma : evaluated_sigmas(sampler_of(options), schedule.sigmas, schedule.table)) {
    const double timestep = schedule.table.timestep(sigma);
    if (std::ranges::find(out, timestep) == out.end()) out.push_back(timestep);
  }
  return out;
}

RunSchedule run_schedule(const SamplerOptions& options, const Training& training, int width, int height) {
  const ScheduleRow* schedule = find_schedule(*options.scheduler);
  MGPU_CHECK(schedule, "scheduler {} was accepted and is not there", *options.scheduler);
  SigmaTable table = sigma_table(*options.shift, training, width, height);
  std::vector<double> sigmas =
      make_sigmas(*schedule, table, *options.steps, *options.denoise, sampler_of(options).extra_step);
  return {std::move(table), std::move(sigmas)};
}

bool evaluates_negative(const SamplerOptions& options) {
  return uses_negative(denoiser_options(options));
}

std::vector<std::string_view> run_prompts(const ImageJob& image) {
  std::vector<std::string_view> out{image.prompt};
  for (const ConditionOptions& condition : *image.conditions) out.push_back(condition.prompt);
  if (evaluates_negative(image.sampler)) out.push_back(image.negative);
  return out;
}

LevelsKey levels_key(const ImageJob& image) {
  const SamplerOptions& options = image.sampler;
  return {*options.name,  *options.scheduler, *options.steps, *options.denoise,
          *options.shift, *image.width,       *image.height};
}

const std::vector<double>& RunTimesteps::of(const ImageJob& image) {
  const auto [known, is_new] = known_.try_emplace(levels_key(image));
  if (is_new)
    known->second =
        evaluated_timesteps(image.sampler, run_schedule(image.sampler, training_, *image.width, *image.height));
  return known->second;
}

}  // namespace mgpu
