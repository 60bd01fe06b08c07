#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// How signal and noise mix along the schedule.
enum class NoisePath {
  VarianceExploding,  ///< x = latent + sigma * noise (SD 1.x, 2.x, SDXL)
  Flow,               ///< x = (1 - sigma) * latent + sigma * noise (Flux, SD3)
};

/// Which random numbers step noise is made of.
enum class StepNoiseKind : std::uint8_t {
  Cpu,     ///< ComfyUI on a CPU
  Philox,  ///< ComfyUI on an NVIDIA GPU, and its `*_gpu` samplers
};

/// The noise levels a model was trained on and how they map to the model's timesteps: ComfyUI's "model sampling".
/// All values are fp32 numbers held as doubles, rounded where ComfyUI rounds.
struct SigmaTable {
  NoisePath path = NoisePath::Flow;
  std::vector<double> sigmas;      ///< ascending
  std::vector<double> log_sigmas;  ///< variance exploding only: their logarithms, taken before rounding
  double shift = 1.0;              ///< flow only: sigma(t) = shift / (shift + 1/t - 1); exp(mu) of Flux's time shift

  double sigma_min() const { return sigmas.front(); }
  double sigma_max() const { return sigmas.back(); }

  /// The noise level of a timestep. Flow: t in (0, 1]; otherwise an index into the table, interpolated in log sigma.
  double sigma(double timestep) const;
  /// What the model is told. Flow: sigma itself; otherwise the index whose log sigma is nearest.
  double timestep(double sigma) const;
  /// The noise level after that fraction (0..1) of sampling; 0 gives sigma_max or above, 1 gives 0.
  double percent_to_sigma(double percent) const;
};

/// Flux dev: 10000 levels. ComfyUI's constant mu is 1.15 at any resolution.
SigmaTable flux_dev_sigmas(double mu = 1.15);

/// The resolution-dependent mu of ComfyUI's ModelSamplingFlux node: linear in the number of 16x16 patches, `base` at
/// 256 of them, `max` at 4096. Width and height in pixels.
double flux_mu(double base, double max, int width, int height);

/// Flux schnell: 1000 levels without a shift.
SigmaTable flux_schnell_sigmas();

/// SD 1.x, 2.x, SDXL: DDPM betas linear in their square root from 0.00085 to 0.012, 1000 levels.
SigmaTable stable_diffusion_sigmas();

/// The same with a last level that has no signal: its alphas, shifted and scaled so that the first keeps its value and
/// the last would be 0 (Lin et al., arXiv:2305.08891), which ComfyUI sets to 4.9e-8, a sigma of 4518.8.
SigmaTable zero_terminal_sigmas();

/// One row of the registry: a schedule is a function and a row.
struct ScheduleRow {
  std::string_view name;  ///< as in ComfyUI
  std::vector<double> (*make)(const SigmaTable& table, int steps);
  std::string_view summary;  ///< one line for the table in samplers/README.md
};

/// All schedules, in ComfyUI's order.
std::span<const ScheduleRow> schedules();

/// The schedule of that name, or null.
const ScheduleRow* find_schedule(std::string_view name);

/// The sigmas that a sampler runs over, first to last, each below the one before, down to 0, equal to ComfyUI's
/// KSampler, but that a level which repeats (of more steps than the table has levels) is run once. Mostly steps + 1
/// values, but some schedules make a few more or fewer (`ddim_uniform`, `beta`). `extra_step` makes one step more and
/// drops the last but one sigma; denoise < 1 takes the last steps + 1 values of a schedule of int(steps / denoise)
/// steps; denoise <= 0 is empty. steps >= 1.
std::vector<double> make_sigmas(const ScheduleRow& schedule, const SigmaTable& table, int steps, double denoise,
                                bool extra_step);

/// The registry as a Markdown table for samplers/README.md.
std::string schedule_table();

}  // namespace mgpu
