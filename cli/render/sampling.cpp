#include "cli/render/sampling.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "cli/job/schedules.h"
#include "core/error.h"
#include "core/memory.h"
#include "samplers/denoiser.h"
#include "samplers/inpaint.h"
#include "samplers/noise.h"

namespace mgpu {
namespace {

constexpr int kLatentFactor = 8;  // pixels a latent value, along each side

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
std::vector<RunConditioning> texts_of(const Run& run) {
  std::vector<RunConditioning> out{{run.positive}};
  for (const RunCondition& condition : run.further) out.push_back({condition.conditioning});
  if (run.negative) out.push_back({run.negative, true});
  return out;
}

/// Its number among texts_of().
std::size_t number_of(Conditioned which, const Run& run) {
  if (which != Conditioned::Negative) return static_cast<std::size_t>(which);
  MGPU_CHECK(run.negative, "the negative prompt was not encoded");
  return run.further.size() + 1;
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

  const at::Tensor noise = initial_noise(run.seed, shape).to(torch_device(engine.latent_device()));
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
