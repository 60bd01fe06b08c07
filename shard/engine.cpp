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

FluxCondition condition_of(const Conditioning& told, double guidance) {
  return {told.context, told.pooled, guidance};
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

std::vector<Conditioning> Engine::encode(std::span<const std::string> prompts) {
  const TextRecipe& recipe = kFluxText;
  const TextualInversions inversions;
  std::vector<std::vector<EncodedText>> texts(prompts.size());
  for (std::size_t i = 0; i < recipe.encoders.size(); ++i) {
    const bool t5 = recipe.encoders[i].encoder == TextEncoder::T5xxl;
    const auto encoder = load_prompt_encoder(recipe, i, encoder_weights(t5 ? *models_.t5xxl : *models_.clip_l),
                                             t5 ? models_.t5xxl_tokenizer : models_.clip_tokenizer, inversions);
    for (std::size_t k = 0; k < prompts.size(); ++k) texts[k].push_back(encoder->encode(prompts[k], 0, ops_));
  }
  std::vector<Conditioning> out;
  for (const std::vector<EncodedText>& pieces : texts) out.push_back(assemble(recipe, pieces));
  release_cached(device_);
  return out;
}

void Engine::load_diffusion() {
  if (flux_) return;
  flux_ = std::make_unique<Flux>(models_.diffusion.flux(), weights_of(models_.diffusion, dtypes_.unet, device_));
  meter_.loaded();
}

void Engine::prepare_run(std::span<const double> sigmas, std::span<const Conditioning* const> conditionings,
                         double guidance) {
  MGPU_CHECK(flux_, "the diffusion model is not loaded");
  modulations_.clear();
  for (const Conditioning* told : conditionings) {
    std::vector<FluxModulation> steps = flux_->modulate(sigmas, condition_of(*told, guidance), ops_);
    for (std::size_t i = 0; i < sigmas.size(); ++i) modulations_[{told, sigmas[i]}] = std::move(steps[i]);
  }
}

const FluxModulation& Engine::modulation(double sigma, const Conditioning& conditioning, double guidance) {
  const auto [place, is_new] = modulations_.try_emplace({&conditioning, sigma});
  if (is_new) {
    place->second = std::move(flux_->modulate({&sigma, 1}, condition_of(conditioning, guidance), ops_).front());
  }
  return place->second;
}

at::Tensor Engine::velocity(const at::Tensor& x, double sigma, const Conditioning& conditioning, double guidance) {
  MGPU_CHECK(flux_, "the diffusion model is not loaded");
  const FluxModulation& step = modulation(sigma, conditioning, guidance);
  const FluxCondition condition = condition_of(conditioning, guidance);
  std::vector<at::Tensor> out;
  for (std::int64_t i = 0; i < x.size(0); ++i) out.push_back(run(x.narrow(0, i, 1), condition, step));
  return at::cat(out, 0);
}

at::Tensor Engine::run(const at::Tensor& x, const FluxCondition& condition, const FluxModulation& modulation) {
  FluxState state = flux_->begin(x, condition, modulation, ops_);
  int executed = 0;
  for (int i = 0; i < flux_->block_count(); ++i, ++executed) flux_->block(i, state, ops_);
  const at::Tensor velocity = flux_->finish(state, ops_).to(x.scalar_type());
  meter_.pass_done(executed);
  return velocity;
}

Weights Engine::encoder_weights(const Part& part) const {
  return weights_of(part, dtypes_.encoders.value_or(stored_type(part)), device_);
}

Weights Engine::vae_weights() const {
  return weights_of(models_.vae, dtypes_.vae, device_);
}

}  // namespace mgpu
