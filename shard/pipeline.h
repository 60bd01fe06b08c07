#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstddef>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/devices.h"
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
    DeviceId id;
    at::Device device = at::kCPU;
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
  /// Waits for the passes that are on their way.
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// So many passes may be on their way at once; without a limit until then.
  void limit(std::size_t passes);

  /// What every member keeps ready for a run.
  class Run {
    friend class Pipeline;
    std::vector<std::unique_ptr<DiffusionShard::Told>> told_;  // by member
  };
  /// The conditionings must outlive the run.
  std::shared_ptr<Run> begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                                 const RunFacts& facts);

  /// Sends x [1, C, h, w] through all blocks, once there are few enough passes on their way. The prediction, likewise,
  /// comes back on x's device and in its type; the future throws what a member threw, DeviceError among it, and never
  /// waits for a pass that was dropped.
  std::future<at::Tensor> submit(const std::shared_ptr<Run>& run, const at::Tensor& x, double timestep,
                                 std::size_t text);

  /// The device of the first block: where a sampler should keep its latent.
  at::Device home() const { return members_[stages_.front().member].device; }
  std::size_t stages() const { return stages_.size(); }

 private:
  struct Pass;

  /// Counts a pass while it is on its way.
  class Place {
   public:
    explicit Place(Pipeline& pipeline);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

   private:
    Pipeline& pipeline_;
  };

  void enter(std::size_t stage, const std::shared_ptr<Pass>& pass);
  void work(std::size_t stage, const std::shared_ptr<Pass>& pass);
  void travel(Pass& pass, const Member& to);
  void complete(Pass& pass, const Member& last);

  std::vector<Member> members_;
  std::vector<Stage> stages_;
  const Ops& ops_;
  std::mutex mutex_;
  std::condition_variable pass_ends_;
  std::size_t passes_ = 0;  // on their way
  std::size_t limit_ = std::numeric_limits<std::size_t>::max();
};

}  // namespace mgpu
