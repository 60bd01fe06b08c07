#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <future>
#include <memory>
#include <span>
#include <vector>

#include "core/ops.h"
#include "shard/diffusion.h"
#include "shard/meter.h"
#include "shard/worker.h"

namespace mgpu {

/// A diffusion model spread over devices: every pass visits the devices in the order of their blocks, and several
/// passes are on their way at once, so that all devices work.
class Pipeline {
 public:
  /// A device with the blocks it holds.
  struct Member {
    DeviceId device;
    Worker* worker = nullptr;
    Meter* meter = nullptr;
    std::unique_ptr<DiffusionShard> shard;
  };
  /// Consecutive blocks that one member runs.
  struct Stage {
    std::size_t member = 0;
    int first = 0;  ///< inclusive, in the order in which blocks run
    int last = 0;
  };

  Pipeline(std::vector<Member> members, std::vector<Stage> stages, const Ops& ops);

  /// What every member keeps ready for a run.
  class Run {
    friend class Pipeline;
    std::vector<std::unique_ptr<DiffusionShard::Told>> told_;  // by member
  };
  /// The conditionings must outlive the run.
  std::shared_ptr<Run> begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                                 const RunFacts& facts);

  /// Sends x [1, C, h, w], which lies on home(), through all blocks. The prediction, likewise, comes back there and in
  /// x's type; the future throws what a member threw.
  std::future<at::Tensor> submit(const std::shared_ptr<Run>& run, const at::Tensor& x, double timestep,
                                 std::size_t text);

  /// The device of the first block: where a sampler should keep its latent.
  const DeviceId& home() const { return members_[stages_.front().member].device; }
  /// Passes that keep every device busy.
  std::size_t depth() const { return stages_.size(); }

 private:
  struct Pass;

  void enter(std::size_t stage, const std::shared_ptr<Pass>& pass);
  void work(std::size_t stage, const std::shared_ptr<Pass>& pass);
  void complete(Pass& pass);
  /// The tensor, if any, moved to a member's device, whose memory it takes from here on.
  static at::Tensor moved(const at::Tensor& tensor, const DeviceId& to);

  std::vector<Member> members_;
  std::vector<Stage> stages_;
  const Ops& ops_;
};

}  // namespace mgpu
