#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>

#include "core/model_set.h"
#include "core/ops.h"
#include "core/text/conditioning.h"

namespace mgpu {

/// A text that a run tells its diffusion model.
struct ToldText {
  const Conditioning* conditioning = nullptr;
  bool negative = false;  ///< SDXL's refiner hears of a lower aesthetic score with it
};

/// What a run tells its diffusion model besides text.
struct RunFacts {
  double guidance = 3.5;     ///< distilled guidance: Flux dev
  std::int64_t width = 0;    ///< of the picture, in pixels: SDXL
  std::int64_t height = 0;   ///< likewise
  at::Tensor channels = {};  ///< [1, c, h, w] beside the latent: inpainting UNets
};

/// A diffusion model as a run evaluates it, whatever its family: the family's model text, told of noise level, text and
/// facts in the family's way.
class DiffusionModel {
 public:
  virtual ~DiffusionModel() = default;

  /// Computes ahead what stays the same while the latent changes, for every text of a run and the timesteps that it
  /// goes through, and forgets the run before. The conditionings must outlive the run.
  virtual void begin_run(std::span<const double> timesteps, std::span<const ToldText> texts, const RunFacts& facts,
                         const Ops& ops) = 0;

  struct Evaluation {
    at::Tensor prediction;  ///< [1, C, h, w]
    int blocks = 0;         ///< executed
  };
  /// x [1, C, h, w] at a timestep (as SigmaTable::timestep gives it), told the run's text of that number. A timestep
  /// that begin_run() did not hear of costs what it would have computed ahead.
  virtual Evaluation evaluate(const at::Tensor& x, double timestep, std::size_t text, const Ops& ops) = 0;
};

/// Loads the diffusion model of a set.
std::unique_ptr<DiffusionModel> load_diffusion(const ModelSet& models, at::ScalarType dtype, at::Device device);

}  // namespace mgpu
