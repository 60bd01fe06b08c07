#include "cli/sampling.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "samplers/denoiser.h"
#include "samplers/noise.h"

namespace mgpu {
namespace {

constexpr int kLatentFactor = 8;  // pixels a latent value, along each side

const SamplerRow& sampler_of(const SamplerOptions& options) {
  const SamplerRow* row = find_sampler(*options.name);
  MGPU_CHECK(row, "sampler {} was accepted and is not there", *options.name);
  return *row;
}

DenoiserOptions denoiser_options(const SamplerOptions& options) {
  return {.prediction = Prediction::Velocity, .cfg = *options.cfg, .needs_uncond = sampler_of(options).needs_uncond};
}

SigmaTable sigma_table(const Shift& shift, const Training& training, int width, int height) {
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

at::Tensor sample(Engine& engine, const Run& run, const std::function<void(int step, int steps)>& on_step) {
  const SamplerOptions& options = *run.options;
  const Training& training = engine.models().training();
  const RunSchedule schedule = run_schedule(options, training, run.width, run.height);
  const SigmaTable& table = schedule.table;
  const std::vector<double>& sigmas = schedule.sigmas;
  const std::vector<std::int64_t> shape = {run.batch, training.latent.channels, run.height / kLatentFactor,
                                           run.width / kLatentFactor};

  const ModelCall model = [&](const at::Tensor& x, double sigma, Conditioned which) {
    const Conditioning* told = which == Conditioned::Positive ? run.positive : run.negative;
    MGPU_CHECK(told, "the negative prompt was not encoded");
    return engine.velocity(x, sigma, *told, *options.guidance);
  };
  std::vector<const Conditioning*> conditionings = {run.positive};
  if (run.negative) conditionings.push_back(run.negative);
  const auto evaluated = std::span(sigmas).first(sigmas.size() - 1);  // the last is where sampling ends
  engine.prepare_run(evaluated, conditionings, *options.guidance);

  const int steps = static_cast<int>(sigmas.size()) - 1;
  const SampleContext context{
      .table = table,
      .denoise = make_denoiser(model, table, sigmas, denoiser_options(options)),
      .noise = make_step_noise(sampler_of(options).step_noise, *options.step_noise, run.seed, shape, sigmas),
      .callback = [&](int step, double, const at::Tensor&, const at::Tensor&) { on_step(step + 1, steps); }};

  const at::Tensor noise = initial_noise(run.seed, shape);
  const at::Tensor x = noised_latent(table, sigmas.front(), noise, at::zeros_like(noise)).to(engine.device());
  const at::Tensor latent = final_latent(table, sigmas.back(), sampler_of(options).sample(x, sigmas, context));
  check_finite(latent, steps, steps);
  return latent.cpu();
}

}  // namespace mgpu
