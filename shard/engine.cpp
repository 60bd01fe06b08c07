#include "shard/engine.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/text/prompt_encoder.h"

namespace mgpu {
namespace {

at::Device torch_device(const DeviceId& id) {
  return id.is_cuda() ? at::Device(at::kCUDA, static_cast<at::DeviceIndex>(id.index)) : at::Device(at::kCPU);
}

}  // namespace

Engine::Engine(ModelSet models, const ComputeDtypes& dtypes, Plan plan)
    : models_(std::move(models)),
      dtypes_(dtypes),
      plan_(std::move(plan)),
      device_(torch_device(plan_.devices.at(0).room.id)),
      meter_(device_) {
  const DeviceRoom& room = plan_.devices.front().room;
  limit_allocations(device_, room.limit_bytes > room.driver_bytes ? room.limit_bytes - room.driver_bytes : 0);
}

std::vector<Conditioning> Engine::encode(std::span<const PromptText> prompts, const TextualInversions& inversions) {
  const TextRecipe& recipe = models_.text();
  std::vector<std::vector<EncodedText>> texts(prompts.size());
  for (std::size_t i = 0; i < recipe.encoders.size(); ++i) {
    const TextEncoder kind = recipe.encoders[i].encoder;
    const std::string& tokenizer = kind == TextEncoder::T5xxl ? models_.t5xxl_tokenizer : models_.clip_tokenizer;
    const auto encoder = load_prompt_encoder(recipe, i, encoder_weights(models_.encoder(kind)), tokenizer, inversions);
    for (std::size_t k = 0; k < prompts.size(); ++k)
      texts[k].push_back(encoder->encode(prompts[k].text, prompts[k].clip_skip, ops_));
  }
  std::vector<Conditioning> out;
  for (const std::vector<EncodedText>& pieces : texts) out.push_back(assemble(recipe, pieces));
  release_cached(device_);
  return out;
}

void Engine::load_diffusion() {
  if (diffusion_) return;
  diffusion_ = mgpu::load_diffusion(models_, dtypes_.unet, device_);
  meter_.loaded();
}

void Engine::begin_run(std::span<const double> timesteps, std::span<const ToldText> texts, const RunFacts& facts) {
  MGPU_CHECK(diffusion_, "the diffusion model is not loaded");
  diffusion_->begin_run(timesteps, texts, facts, ops_);
}

at::Tensor Engine::evaluate(const at::Tensor& x, double timestep, std::size_t text) {
  MGPU_CHECK(diffusion_, "the diffusion model is not loaded");
  std::vector<at::Tensor> out;
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const DiffusionModel::Evaluation one = diffusion_->evaluate(x.narrow(0, i, 1), timestep, text, ops_);
    out.push_back(one.prediction.to(x.scalar_type()));
    meter_.pass_done(one.blocks);
  }
  return at::cat(out, 0);
}

Weights Engine::encoder_weights(const Part& part) const {
  return weights_of(part, dtypes_.encoders.value_or(stored_type(part)), device_);
}

Weights Engine::vae_weights() const {
  return weights_of(models_.vae, dtypes_.vae, device_);
}

}  // namespace mgpu
