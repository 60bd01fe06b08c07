#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/family.h"
#include "core/models/held_blocks.h"
#include "core/need.h"
#include "core/ops.h"
#include "core/text/conditioning.h"
#include "core/weights.h"

namespace mgpu {

struct ModelSet;

/// A text that a run tells its diffusion model.
struct RunConditioning {
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

/// A text that a run to come will be told.
struct UpcomingConditioning {
  const Conditioning* conditioning = nullptr;
  double guidance = 3.5;          ///< of the run
  std::vector<double> timesteps;  ///< likewise
};

/// What is computed once for nothing as a model is loaded, at the sizes of a job's first picture: a GPU loads kernels
/// when they are first used, which takes it longer than several passes do. Here all devices do it at the same time.
struct WarmUpShape {
  std::int64_t width = 0, height = 0;  ///< in pixels; 0: there is none
  std::int64_t text_tokens = 0;
};

/// One evaluation on its way through the blocks of a diffusion model: at a timestep (as SigmaTable::timestep gives it),
/// told the run's text of that number.
class DiffusionPass {
 public:
  DiffusionPass(double at, std::size_t number) : timestep(at), text(number) {}
  virtual ~DiffusionPass() = default;

  const double timestep;
  const std::size_t text;
  /// The tensors to move when the next block is another device's.
  virtual std::vector<at::Tensor*> travelling() = 0;
};

/// A pass whose state is the model's own.
template <class State>
struct PassOf final : DiffusionPass {
  PassOf(double at, std::size_t number, State begun) : DiffusionPass(at, number), state(std::move(begun)) {}
  std::vector<at::Tensor*> travelling() override { return state.travelling(); }

  State state;
};

/// The blocks of a diffusion model that one device holds, whatever the family: the family's model text, told of noise
/// level, text and facts in the family's way. Not for several threads at once.
class DiffusionShard {
 public:
  virtual ~DiffusionShard() = default;

  /// Says what runs to come will be told, in order: what takes weights that do not stay is computed for several texts
  /// at once, for the first ones now, and waits in main memory. A GPU rehearses the rest.
  virtual void prefetch(std::span<const UpcomingConditioning>, const Ops&) {}

  /// What stays the same while a run's latent changes.
  class RunState {
   public:
    virtual ~RunState() = default;
  };
  /// Computes it ahead for every text of a run and the timesteps that it goes through. The conditionings must outlive
  /// it.
  virtual std::unique_ptr<RunState> begin_run(std::span<const double> timesteps, std::span<const RunConditioning> texts,
                                              const RunFacts& facts, const Ops& ops) = 0;

  /// Begins an evaluation of x [1, C, h, w]. The first block must be held.
  virtual std::unique_ptr<DiffusionPass> begin(const RunState& run_state, const at::Tensor& x, double timestep,
                                               std::size_t text, const Ops& ops) const = 0;
  /// Runs a held block on a pass. A timestep that begin_run() did not hear of costs what it would have computed ahead.
  virtual void run(int block, DiffusionPass& pass, RunState& run_state, const Ops& ops) const = 0;
  /// The tensors that run() reads of a held block, for whoever streams it.
  virtual std::vector<at::Tensor*> block_tensors(int block) = 0;
  /// The prediction [1, C, h, w]. The last block must be held.
  virtual at::Tensor finish(DiffusionPass& pass, RunState& run_state, const Ops& ops) const = 0;
};

/// A diffusion model text: all that shared code asks of it. A family of that text is a row that points at it.
class DiffusionModel : public PartModel {
 public:
  /// What a job asks of memory and time, by the part's headers.
  virtual ComponentNeed need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const = 0;
  /// Throws Error naming both files where an encoder or the autoencoder of the set does not belong to the model.
  virtual void check(const ModelSet&) const {}
  /// Loads the held blocks. A GPU goes through `rehearsal` once.
  virtual std::unique_ptr<DiffusionShard> load(const Part& part, const Weights& weights, const HeldBlocks& held,
                                               const WarmUpShape& warm_up_shape) const = 0;

  /// The type that it is released in, and GPUs compute in unless the job says otherwise: bf16 or fp16.
  virtual at::ScalarType gpu_type() const { return at::kBFloat16; }
  /// Whether it has an input for the distilled guidance.
  virtual bool takes_guidance(const Part&) const { return false; }
  /// Channels that it takes beside the latent's: a mask and the masked picture's latent.
  virtual std::int64_t extra_channels(const Part&) const { return 0; }
};

/// The model text of a part that is a diffusion model.
const DiffusionModel& diffusion_model(const Part& part);

/// A block as a plan names it: "double" 3, "up" 0, ...
struct DiffusionBlock {
  std::string kind;
  int number = 0;
};
/// The blocks of a diffusion model, in the order in which they run.
std::vector<DiffusionBlock> diffusion_blocks(const Part& part);

}  // namespace mgpu
