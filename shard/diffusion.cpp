#include "shard/diffusion.h"

#include <ATen/ATen.h>

#include <map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/models/flux.h"
#include "core/models/unet.h"
#include "core/text/size_conditioning.h"

namespace mgpu {
namespace {

/// Runs all blocks of a model on a state that its begin() made.
template <class Model, class State>
DiffusionModel::Evaluation run_blocks(const Model& model, State state, const Ops& ops) {
  DiffusionModel::Evaluation out;
  for (int i = 0; i < model.block_count(); ++i, ++out.blocks) model.block(i, state, ops);
  out.prediction = model.finish(state, ops);
  return out;
}

class FluxDiffusion final : public DiffusionModel {
 public:
  FluxDiffusion(const FluxSizes& sizes, const Weights& weights) : model_(sizes, weights) {}

  void begin_run(std::span<const double> timesteps, std::span<const ToldText> texts, const RunFacts& facts,
                 const Ops& ops) override {
    told_.clear();
    for (const ToldText& text : texts) {
      Told& told = told_.emplace_back();
      told.condition = {text.conditioning->context, text.conditioning->pooled, facts.guidance};
      std::vector<FluxModulation> steps = model_.modulate(timesteps, told.condition, ops);
      for (std::size_t i = 0; i < timesteps.size(); ++i) told.steps[timesteps[i]] = std::move(steps[i]);
    }
  }

  Evaluation evaluate(const at::Tensor& x, double timestep, std::size_t text, const Ops& ops) override {
    Told& told = told_.at(text);
    const auto [step, is_new] = told.steps.try_emplace(timestep);
    if (is_new) step->second = std::move(model_.modulate({&timestep, 1}, told.condition, ops).front());
    return run_blocks(model_, model_.begin(x, told.condition, step->second, ops), ops);
  }

 private:
  struct Told {
    FluxCondition condition;
    std::map<double, FluxModulation> steps;  ///< by timestep
  };

  Flux model_;
  std::vector<Told> told_;
};

class UNetDiffusion final : public DiffusionModel {
 public:
  UNetDiffusion(const FamilyRow& family, const UNetSizes& sizes, const Weights& weights)
      : family_(family), model_(sizes, weights) {}

  void begin_run(std::span<const double>, std::span<const ToldText> texts, const RunFacts& facts,
                 const Ops& ops) override {
    channels_ = facts.channels;
    told_.clear();
    for (const ToldText& text : texts)
      told_.push_back({model_.text(text.conditioning->context, ops), vector(text, facts)});
  }

  Evaluation evaluate(const at::Tensor& x, double timestep, std::size_t text, const Ops& ops) override {
    const Told& told = told_.at(text);
    const at::Tensor input = channels_.defined() ? at::cat({x, channels_.to(x.device())}, 1) : x;
    return run_blocks(model_, model_.begin(input, timestep, told.vector, told.text, ops), ops);
  }

 private:
  struct Told {
    UNetText text;
    at::Tensor vector;  ///< pooled text and sizes; undefined for a family that takes none
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
  at::Tensor channels_;
  std::vector<Told> told_;
};

}  // namespace

std::unique_ptr<DiffusionModel> load_diffusion(const ModelSet& models, at::ScalarType dtype, at::Device device) {
  const Part& part = models.diffusion;
  const Weights weights = weights_of(part, dtype, device);
  if (models.is_flux()) return std::make_unique<FluxDiffusion>(part.flux(), weights);
  return std::make_unique<UNetDiffusion>(*part.row, part.unet(), weights);
}

}  // namespace mgpu
