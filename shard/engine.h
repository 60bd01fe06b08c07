#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/model_set.h"
#include "core/ops.h"
#include "core/text/conditioning.h"
#include "core/text/textual_inversion.h"
#include "shard/diffusion.h"
#include "shard/meter.h"
#include "shard/needs.h"
#include "shard/plan.h"

namespace mgpu {

/// A prompt, and the layer of CLIP that it is to be read from (layer_under()).
struct PromptText {
  std::string text;
  std::int64_t clip_skip = 0;

  auto operator<=>(const PromptText&) const = default;
};

/// Runs a job's models on the devices of its plan. Components take turns: encoders leave the device before the
/// diffusion model comes.
class Engine {
 public:
  Engine(ModelSet models, const ComputeDtypes& dtypes, Plan plan);

  at::Device device() const { return device_; }
  const Plan& plan() const { return plan_; }
  const ModelSet& models() const { return models_; }
  const Ops& ops() const { return ops_; }
  Meter& meter() { return meter_; }
  const Meter& meter() const { return meter_; }

  /// What the diffusion model is told of each prompt. Loads the text encoders one after another, uses them and lets
  /// them go.
  std::vector<Conditioning> encode(std::span<const PromptText> prompts,
                                   const TextualInversions& inversions = TextualInversions());

  /// Loads the diffusion model, if it is not there yet.
  void load_diffusion();

  /// Computes ahead what stays the same through a run: DiffusionModel::begin_run.
  void begin_run(std::span<const double> timesteps, std::span<const ToldText> texts, const RunFacts& facts);

  /// One evaluation for each image of the batch, one after another: x [B, C, h, w] fp32 at a timestep, told the run's
  /// text of that number -> predictions, likewise.
  at::Tensor evaluate(const at::Tensor& x, double timestep, std::size_t text);

  /// Weights of the autoencoder, for the codec to load.
  Weights vae_weights() const;

 private:
  Weights encoder_weights(const Part& part) const;

  ModelSet models_;
  ComputeDtypes dtypes_;
  Plan plan_;
  at::Device device_;
  LocalOps ops_;
  Meter meter_;
  std::unique_ptr<DiffusionModel> diffusion_;
};

}  // namespace mgpu
