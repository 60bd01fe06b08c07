#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace mgpu {

/// The noise levels a model was trained on, ascending, and how a timestep maps to one. ComfyUI's "model sampling".
struct SigmaTable {
  std::vector<double> sigmas;  ///< ascending; sigmas.front() is sigma_min, sigmas.back() sigma_max
  bool flow = true;            ///< flow: sigma(t) by the shift's formula, timesteps are sigmas; else log-linear interpolation in the table
  double shift = 1.0;          ///< flow only: exp(mu) of Flux's time shift, 1 for none

  double sigma_min() const { return sigmas.front(); }
  double sigma_max() const { return sigmas.back(); }
};

/// Flux dev: 10000 levels e^mu / (e^mu + 1/t - 1), ComfyUI's constant mu = 1.15 at any resolution unless the job says otherwise.
SigmaTable flux_dev_sigmas(double mu = 1.15);
/// Flux schnell: 1000 levels t, shift 1.
SigmaTable flux_schnell_sigmas();

/// One row of the registry: name as in ComfyUI.
struct ScheduleRow {
  std::string_view name;
  std::vector<double> (*make)(const SigmaTable& table, int steps);
  std::string_view summary;  ///< one line for the README's table
};

std::span<const ScheduleRow> schedules();
const ScheduleRow* find_schedule(std::string_view name);

/// The sigmas that a sampler runs over, first to last (0), as ComfyUI makes them: `extra_step` runs one step more and drops the last but
/// one; denoise < 1 takes the last steps + 1 of int(steps / denoise). ComfyUI computes in fp32: so do we, value for value.
std::vector<double> make_sigmas(const ScheduleRow& schedule, const SigmaTable& table, int steps, double denoise, bool extra_step);

}  // namespace mgpu
