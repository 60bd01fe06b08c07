#include "shard/diffusion.h"

#include <ATen/ATen.h>

#include <map>
#include <utility>

#include "core/error.h"
#include "core/models/flux.h"
#include "core/models/unet.h"
#include "core/text/size_conditioning.h"

namespace mgpu {
namespace {

/// A pass whose state is the model's own.
template <class State>
struct PassOf final : DiffusionPass {
  explicit PassOf(State begun) : state(std::move(begun)) {}
  std::vector<at::Tensor*> travelling() override { return state.travelling(); }

  State state;
};

class FluxShard final : public DiffusionShard {
 public:
  FluxShard(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held) : model_(sizes, weights, held) {}

  std::unique_ptr<Told> begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                                  const RunFacts& facts, const Ops& ops) const override {
    auto told = std::make_unique<FluxTold>();
    for (const ToldText& text : texts) {
      FluxText& one = told->texts.emplace_back();
      one.condition = {text.conditioning->context, text.conditioning->pooled, facts.guidance};
      std::vector<FluxModulation> steps = model_.modulate(timesteps, one.condition, ops);
      for (std::size_t i = 0; i < timesteps.size(); ++i) one.steps[timesteps[i]] = std::move(steps[i]);
    }
    return told;
  }

  std::unique_ptr<DiffusionPass> begin(const Told& told, const at::Tensor& x, double, std::size_t text,
                                       const Ops& ops) const override {
    const FluxCondition& condition = static_cast<const FluxTold&>(told).texts.at(text).condition;
    return std::make_unique<PassOf<FluxState>>(model_.begin(x, condition, ops));
  }

  void run(int block, DiffusionPass& pass, Told& told, double timestep, std::size_t text,
           const Ops& ops) const override {
    model_.block(block, state_of(pass, told, timestep, text, ops), ops);
  }

  at::Tensor finish(DiffusionPass& pass, Told& told, double timestep, std::size_t text, const Ops& ops) const override {
    return model_.finish(state_of(pass, told, timestep, text, ops), ops);
  }

 private:
  struct FluxText {
    FluxCondition condition;
    std::map<double, FluxModulation> steps;  ///< by timestep
  };
  struct FluxTold final : Told {
    std::vector<FluxText> texts;
  };

  /// The pass's state, with this device's modulation of the step.
  FluxState& state_of(DiffusionPass& pass, Told& told, double timestep, std::size_t text, const Ops& ops) const {
    FluxText& one = static_cast<FluxTold&>(told).texts.at(text);
    const auto [step, is_new] = one.steps.try_emplace(timestep);
    if (is_new) step->second = std::move(model_.modulate({&timestep, 1}, one.condition, ops).front());
    FluxState& state = static_cast<PassOf<FluxState>&>(pass).state;
    state.modulation = &step->second;
    return state;
  }

  Flux model_;
};

class UNetShard final : public DiffusionShard {
 public:
  UNetShard(const FamilyRow& family, const UNetSizes& sizes, const Weights& weights, const HeldBlocks& held)
      : family_(family), model_(sizes, weights, held) {}

  std::unique_ptr<Told> begin_run(std::span<const double>, std::span<const ToldText> texts, const RunFacts& facts,
                                  const Ops& ops) const override {
    auto told = std::make_unique<UNetTold>();
    told->channels = facts.channels;
    for (const ToldText& text : texts)
      told->texts.push_back({model_.text(text.conditioning->context, ops), vector(text, facts)});
    return told;
  }

  std::unique_ptr<DiffusionPass> begin(const Told& told, const at::Tensor& x, double timestep, std::size_t text,
                                       const Ops& ops) const override {
    const auto& [texts, channels] = static_cast<const UNetTold&>(told);
    const at::Tensor input = channels.defined() ? at::cat({x, channels.to(x.device())}, 1) : x;
    return std::make_unique<PassOf<UNetState>>(model_.begin(input, timestep, texts.at(text).vector, ops));
  }

  void run(int block, DiffusionPass& pass, Told& told, double, std::size_t text, const Ops& ops) const override {
    UNetState& state = static_cast<PassOf<UNetState>&>(pass).state;
    state.text = &static_cast<UNetTold&>(told).texts.at(text).text;
    model_.block(block, state, ops);
  }

  at::Tensor finish(DiffusionPass& pass, Told&, double, std::size_t, const Ops& ops) const override {
    return model_.finish(static_cast<PassOf<UNetState>&>(pass).state, ops);
  }

 private:
  struct UNetWords {
    UNetText text;
    at::Tensor vector;  ///< pooled text and sizes; undefined for a family that takes none
  };
  struct UNetTold final : Told {
    std::vector<UNetWords> texts;
    at::Tensor channels;
  };

  at::Tensor vector(const ToldText& text, const RunFacts& facts) const {
    if (family_.size_values == 0) return {};
    const at::Tensor& pooled = text.conditioning->pooled;
    if (!family_.aesthetic) return sdxl_vector(pooled, facts.height, facts.width);
    return sdxl_refiner_vector(pooled, facts.height, facts.width,
                               text.negative ? kNegativeAesthetic : kPositiveAesthetic);
  }

  const FamilyRow& family_;
  UNet model_;
};

}  // namespace

int diffusion_block_count(const ModelSet& models) {
  if (!models.is_flux()) return static_cast<int>(unet_blocks(models.diffusion.unet()).size());
  return models.diffusion.flux().depth + models.diffusion.flux().depth_single;
}

int diffusion_block_index(const ModelSet& models, std::string_view kind, int number) {
  if (models.is_flux()) return kind == "double" ? number : models.diffusion.flux().depth + number;
  const std::vector<UNetBlockName> names = unet_blocks(models.diffusion.unet());
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i].kind == kind && names[i].number == number) return static_cast<int>(i);
  MGPU_CHECK(false, "no {} block {}", kind, number);
}

std::unique_ptr<DiffusionShard> load_shard(const ModelSet& models, const HeldBlocks& held, at::ScalarType dtype,
                                           at::Device device) {
  const Part& part = models.diffusion;
  const Weights weights = weights_of(part, dtype, device);
  if (models.is_flux()) return std::make_unique<FluxShard>(part.flux(), weights, held);
  return std::make_unique<UNetShard>(*part.row, part.unet(), weights, held);
}

}  // namespace mgpu
