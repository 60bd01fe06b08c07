#include "samplers/denoiser.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace mgpu {
namespace {

bool is_close(double a, double b, double relative) {
  return std::abs(a - b) <= relative * std::max(std::abs(a), std::abs(b));
}

/// The prediction of the clean latent from the model's output.
at::Tensor clean(Prediction prediction, const at::Tensor& x, double sigma, const at::Tensor& output) {
  if (prediction != Prediction::V) return x - output * sigma;
  double variance = sigma * sigma + 1;
  return x * (1 / variance) - output * (sigma / std::sqrt(variance));
}

/// The step from 1 that an evaluation at sigma belongs to: those between two levels belong to the higher one.
int step_of(const std::vector<double>& sigmas, double sigma) {
  auto passed = std::ranges::count_if(sigmas, [&](double level) { return level >= sigma; });
  return std::clamp(static_cast<int>(passed), 1, std::max(1, static_cast<int>(sigmas.size()) - 1));
}

/// Compared in fp32, as ComfyUI's tensors are.
bool acts_at(const Region& region, double sigma) {
  const auto level = static_cast<float>(sigma);
  return level <= static_cast<float>(region.from) && level >= static_cast<float>(region.to);
}

/// The positive texts that count at sigma.
std::vector<Conditioned> positives_at(const std::vector<Region>& regions, double sigma) {
  if (regions.empty()) return {Conditioned::Positive};
  std::vector<Conditioned> out;
  for (std::size_t i = 0; i < regions.size(); ++i)
    if (acts_at(regions[i], sigma)) out.push_back(static_cast<Conditioned>(i));
  return out;
}

/// The mean of those texts' clean latents over their regions.
at::Tensor mean_over(const std::vector<Region>& regions, std::span<const Conditioned> texts,
                     std::span<const at::Tensor> latents, const at::Tensor& x) {
  constexpr double nothing = 1e-37;  // keeps 0 / 0 from being NaN where no region acts
  at::Tensor sum = at::zeros_like(x), weights = at::full_like(x, nothing);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const Region& region = regions[static_cast<std::size_t>(texts[i])];
    const at::Tensor weight =
        (region.mask.defined() ? region.mask : at::ones({1, 1, 1, 1}, x.options())) * region.strength;
    sum += latents[i] * weight;
    weights += weight;
  }
  return sum / weights;
}

std::string not_finite_hint(at::ScalarType computed_in) {
  if (computed_in == at::kHalf) return "a wider dtype often helps: bf16 or fp32 instead of fp16";
  if (computed_in == at::kBFloat16) return "a wider dtype often helps: fp32 instead of bf16";
  return "fp32 is wide enough: look for damage in the model's file, or take another sampler or scheduler";
}

}  // namespace

bool uses_negative(const DenoiserOptions& options) {
  return options.needs_uncond || !is_close(options.cfg, 1, 1e-9);
}

Denoise make_denoiser(ModelCall model, const SigmaTable& table, std::span<const double> sigmas,
                      const DenoiserOptions& options) {
  MGPU_CHECK((options.prediction == Prediction::Velocity) == (table.path == NoisePath::Flow),
             "the prediction does not belong to the noise path");
  std::vector<double> levels(sigmas.begin(), sigmas.end());
  return [model = std::move(model), table, levels, options](const at::Tensor& x, double sigma) -> Denoised {
    double timestep = table.timestep(sigma);
    at::Tensor input = table.path == NoisePath::Flow ? x : x / std::sqrt(sigma * sigma + 1);
    std::vector<Conditioned> texts = positives_at(options.regions, sigma);
    const std::size_t positives = texts.size();
    if (uses_negative(options)) texts.push_back(Conditioned::Negative);
    std::vector<at::Tensor> latents = texts.empty() ? std::vector<at::Tensor>{} : model(input, timestep, texts);
    for (at::Tensor& latent : latents) latent = clean(options.prediction, x, sigma, latent.to(x.scalar_type()));
    at::Tensor denoised = options.regions.empty() ? latents.front()
                                                  : mean_over(options.regions, std::span(texts).first(positives),
                                                              std::span(latents).first(positives), x);
    at::Tensor uncond = denoised;
    if (uses_negative(options)) {
      uncond = latents.back();
      denoised = uncond + (denoised - uncond) * options.cfg;
    }
    check_finite(denoised, step_of(levels, sigma), static_cast<int>(levels.size()) - 1, options.computed_in);
    return {denoised, uncond};
  };
}

void check_finite(const at::Tensor& latent, int step, int steps, at::ScalarType computed_in) {
  // The largest magnitude carries any NaN or Inf along: one reduction, and the counts only when they are needed.
  if (std::isfinite(latent.abs().max().item<double>())) return;
  throw Error(Exit::ImageFailed, Mark{},
              fmt::format("step {} of {}: the latent is not finite ({} NaN, {} Inf)", step, steps,
                          latent.isnan().sum().item<std::int64_t>(), latent.isinf().sum().item<std::int64_t>()),
              not_finite_hint(computed_in));
}

at::Tensor at_level(const SigmaTable& table, double sigma, const at::Tensor& noise, const at::Tensor& latent) {
  return table.path == NoisePath::Flow ? sigma * noise + (1 - sigma) * latent : noise * sigma + latent;
}

at::Tensor noised_latent(const SigmaTable& table, double sigma, const at::Tensor& noise, const at::Tensor& latent) {
  bool from_top = sigma > table.sigma_max() || is_close(sigma, table.sigma_max(), 1e-5);
  if (table.path == NoisePath::Flow || !from_top) return at_level(table, sigma, noise, latent);
  return noise * std::sqrt(1 + sigma * sigma) + latent;
}

at::Tensor final_latent(const SigmaTable& table, double sigma, const at::Tensor& x) {
  return table.path == NoisePath::Flow && sigma > 0 ? x / (1 - sigma) : x;
}

}  // namespace mgpu
