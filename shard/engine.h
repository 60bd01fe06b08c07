#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/model_set.h"
#include "core/models/flux.h"
#include "core/ops.h"
#include "core/text/conditioning.h"
#include "shard/meter.h"
#include "shard/needs.h"
#include "shard/plan.h"

namespace mgpu {

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

  /// What the diffusion model is told of each prompt. Loads the encoders, uses them and lets them go.
  std::vector<Conditioning> encode(std::span<const std::string> prompts);

  /// Loads the diffusion model, if it is not there yet.
  void load_diffusion();

  /// Computes ahead what depends on the step alone, for the noise levels that a run goes through. A level that was not
  /// named here costs its own reading of the modulation weights.
  void prepare_run(std::span<const double> sigmas, std::span<const Conditioning* const> conditionings, double guidance);

  /// One evaluation for each image of the batch, one after another: x [B, 16, h, w] fp32 at noise level sigma ->
  /// velocities, likewise.
  at::Tensor velocity(const at::Tensor& x, double sigma, const Conditioning& conditioning, double guidance);

  /// Weights of the autoencoder, for the codec to load.
  Weights vae_weights() const;

 private:
  Weights encoder_weights(const Part& part) const;
  const FluxModulation& modulation(double sigma, const Conditioning& conditioning, double guidance);
  at::Tensor run(const at::Tensor& x, const FluxCondition& condition, const FluxModulation& modulation);

  ModelSet models_;
  ComputeDtypes dtypes_;
  Plan plan_;
  at::Device device_;
  LocalOps ops_;
  Meter meter_;
  std::unique_ptr<Flux> flux_;
  /// Of the run at hand: by conditioning and noise level.
  std::map<std::pair<const Conditioning*, double>, FluxModulation> modulations_;
};

}  // namespace mgpu
