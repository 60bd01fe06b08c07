#include "cli/render/sampling.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/memory.h"
#include "samplers/denoiser.h"
#include "samplers/inpaint.h"
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
  return {.cfg = *options.cfg, .needs_uncond = sampler_of(options).needs_uncond};
}

/// Where and when each positive conditioning counts; nothing to say where the prompt is alone.
std::vector<Region> regions_of(const Run& run, const SigmaTable& table, at::Device device) {
  if (run.further.empty()) return {};
  std::vector<Region> regions(1);
  for (const RunCondition& condition : run.further) {
    regions.push_back({.mask = condition.mask.defined() ? condition.mask.to(device) : at::Tensor(),
                       .strength = condition.strength,
                       .from = table.percent_to_sigma(condition.start),
                       .to = table.percent_to_sigma(condition.end)});
  }
  return regions;
}

/// Every text that the model may be told: the prompt's own, the further ones, and last the negative.
std::vector<ToldText> texts_of(const Run& run) {
  std::vector<ToldText> out{{run.positive}};
  for (const RunCondition& condition : run.further) out.push_back({condition.told});
  if (run.negative) out.push_back({run.negative, true});
  return out;
}

/// Its number among texts_of().
std::size_t number_of(Conditioned which, const Run& run) {
  if (which != Conditioned::Negative) return static_cast<std::size_t>(which);
  MGPU_CHECK(run.negative, "the negative prompt was not encoded");
  return run.further.size() + 1;
}

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

/// What the sampler evaluates the model at, each once.
std::vector<double> evaluated_timesteps(const SamplerOptions& options, const RunSchedule& schedule) {
  std::vector<double> out;
  for (const double sigma : evaluated_sigmas(sampler_of(options), schedule.sigmas, schedule.table)) {
    const double timestep = schedule.table.timestep(sigma);
    if (std::ranges::find(out, timestep) == out.end()) out.push_back(timestep);
  }
  return out;
}

/// The denoiser of a run: guided, with all its conditionings, and true to the init image where its mask says so.
Denoise denoiser_of(const Run& run, const RunSchedule& schedule, Prediction prediction, const ModelCall& model,
                    at::ScalarType computed_in, const at::Tensor& noise, const at::Tensor& latent) {
  DenoiserOptions options = denoiser_options(*run.options);
  options.computed_in = computed_in;
  options.prediction = prediction;
  options.regions = regions_of(run, schedule.table, noise.device());
  Denoise denoise = make_denoiser(model, schedule.table, schedule.sigmas, options);
  if (!run.mask.defined()) return denoise;
  const bool own_noise = sampler_of(*run.options).own_mask_noise;
  const at::Tensor over = own_noise ? initial_noise(run.seed + 1, noise.sizes()).to(noise.device()) : noise;
  return repaint(std::move(denoise), schedule.table, run.mask.to(noise.device()), latent, over);
}

}  // namespace

void check_schedules(const Job& job) {
  constexpr double kMost = 1e6;
  for (const ImageJob& image : job.images) {
    const SamplerOptions& options = image.sampler;
    const double whole = *options.steps / *options.denoise;
    if (whole <= kMost * (1 + 1e-9)) continue;
    throw job.error(options.denoise.given ? options.denoise.mark : options.steps.mark,
                    fmt::format("{} steps of a \"denoise\" of {} are the end of a schedule of {:.0f} steps",
                                *options.steps, *options.denoise, whole),
                    fmt::format("the longest is {:.0f}: take fewer steps or a larger denoise", kMost));
  }
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

std::vector<std::string_view> told_prompts(const ImageJob& image) {
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

at::Tensor sample(Engine& engine, const Run& run, const OnStep& on_step) {
  const SamplerOptions& options = *run.options;
  const Training& training = engine.models().training();
  const RunSchedule schedule = run_schedule(options, training, run.width, run.height);
  const std::vector<double>& sigmas = schedule.sigmas;
  const std::vector<std::int64_t> shape = {run.batch, training.latent.channels, run.height / kLatentFactor,
                                           run.width / kLatentFactor};

  const Engine::Run begun = engine.begin_run(evaluated_timesteps(options, schedule), texts_of(run),
                                             {*options.guidance, run.width, run.height, run.channels});
  const ModelCall model = [&](const at::Tensor& x, double timestep, std::span<const Conditioned> texts) {
    std::vector<std::size_t> numbers;
    for (const Conditioned text : texts) numbers.push_back(number_of(text, run));
    return engine.evaluate(begun, x, timestep, numbers);
  };

  const at::Tensor noise = initial_noise(run.seed, shape).to(torch_device(engine.home()));
  const at::Tensor latent = run.latent.defined() ? run.latent.to(noise.device()) : at::zeros_like(noise);
  const int steps = static_cast<int>(sigmas.size()) - 1;
  const SampleContext context{
      .table = schedule.table,
      .denoise = denoiser_of(run, schedule, training.prediction, model, engine.diffusion_type(), noise, latent),
      .noise = make_step_noise(sampler_of(options).step_noise, *options.step_noise, run.seed, shape, sigmas),
      .callback = [&](int step, double, const at::Tensor&, const at::Tensor& denoised) {
        on_step(step + 1, steps, denoised);
      }};

  const at::Tensor x = noised_latent(schedule.table, sigmas.front(), noise, latent);
  const at::Tensor result = final_latent(schedule.table, sigmas.back(), sampler_of(options).sample(x, sigmas, context));
  check_finite(result, steps, steps, engine.diffusion_type());
  return result.cpu();
}

}  // namespace mgpu
