#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/devices.h"
#include "core/hand_over.h"
#include "core/models/diffusion_model.h"
#include "core/ops.h"
#include "shard/block_stream.h"
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
    std::unique_ptr<const Ops> ops;  ///< what operations mean on it, in the group of its stages
    std::unique_ptr<DiffusionShard> shard = nullptr;
    std::unique_ptr<BlockStream> stream = nullptr;  ///< of its blocks that others keep, if there are such
    /// Of a GPU with a thread of its own: waits for what the worker has queued, which goes on. Null: a stage's work is
    /// done when the worker is, or else nobody but the same thread's later work asks for it.
    Worker* follower = nullptr;
  };
  /// Consecutive blocks that a group of members runs together, each by its own Ops. Every mode so far makes groups of
  /// one.
  struct Stage {
    std::vector<std::size_t> group;  ///< by rank; the first receives passes and sends them on
    int first = 0;                   ///< inclusive, in the order in which blocks run
    int last = 0;

    std::size_t lead() const { return group.front(); }
  };

  Pipeline(std::vector<Member> members, std::vector<Stage> stages);
  /// Waits for the passes that are on their way, and until nothing that was posted for them is left.
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// So many passes may be on their way at once; without a limit until then.
  void limit(std::size_t passes);

  /// What every member keeps ready for a run.
  class Run {
    friend class Pipeline;
    std::vector<std::unique_ptr<DiffusionShard::RunState>> states_;  // by member
  };
  /// The conditionings must outlive the run.
  std::shared_ptr<Run> begin_run(std::span<const double> timesteps, std::span<const RunConditioning> texts,
                                 const RunFacts& facts);

  /// What a pass evaluates.
  struct Evaluation {
    at::Tensor x;          ///< [1, C, h, w], on home(), as the caller's current stream there gives it
    std::size_t text = 0;  ///< number in the run
  };
  /// Sends each through all blocks, as many at once as may be on their way. Its prediction, like x, comes back on
  /// home() and in its type, complete, or, where a GPU has no follower, as that device's current stream gives it. The
  /// future throws what a member threw, DeviceError among it, Interrupted once the program was asked to end, and never
  /// waits for a pass that was dropped. What submit() itself throws it throws before any pass begins.
  std::vector<std::future<at::Tensor>> submit(const std::shared_ptr<Run>& run, std::span<const Evaluation> evaluations,
                                              double timestep);

  /// Runs `work` in the worker of a member's device, behind the passes that have come to it by now: the other devices
  /// go on with those that it has sent them. No pass begins there until it is done. The future throws what it throws.
  std::future<void> between_passes(const DeviceId& device, std::function<void()> work);

  /// The device of the first block: where a sampler should keep its latent.
  const DeviceId& latent_device() const { return members_[stages_.front().lead()].device; }
  std::size_t stages() const { return stages_.size(); }
  /// Bytes of blocks that a donor keeps for its members.
  std::uint64_t offloaded_bytes(const DeviceId& donor) const;

 private:
  struct Pass;
  using Passes = std::vector<std::shared_ptr<Pass>>;

  /// Counts a pass while it is on its way: made with the lock held, given back without.
  class Slot {
   public:
    explicit Slot(Pipeline& pipeline) : pipeline_(pipeline) { ++pipeline_.in_flight_; }
    ~Slot();
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

   private:
    Pipeline& pipeline_;
  };

  /// Counts something that was posted, likewise.
  class Task;
  /// Posts it, and counts it until it and all that it held has gone: whoever has waited for its effects may take the
  /// pipeline down meanwhile.
  void post(Worker& worker, std::function<void()> task);
  /// Has a member look for something to do. Returns why it cannot be told.
  std::exception_ptr wake(std::size_t member) noexcept;
  /// The same for something that waits without a task of its own: it fails where the member cannot be told.
  void look_again(std::size_t member) noexcept;
  /// Fails what waits for a member, which nobody may come for.
  void drop_waiting(std::size_t member, const std::exception_ptr& error) noexcept;

  /// Waits until a pass may begin, and says how many of these, from the first on, may.
  std::size_t admit(std::span<const std::shared_ptr<Pass>> passes);
  /// Lets passes wait before a stage, with a task for each; those that cannot wait fail.
  void enter(std::size_t stage, std::span<const std::shared_ptr<Pass>> passes) noexcept;
  /// Passes that wait before one of a member's stages, to go through it together.
  struct Batch {
    std::size_t stage = 0;
    Passes passes;
  };
  /// The next ones: none while the member has enough to do.
  Batch take(std::size_t member);
  /// The stage of a member before which a pass has waited longest, if any does; the lock held.
  std::optional<std::size_t> next_stage(std::size_t member) const;
  /// The lock held.
  bool has_enough(std::size_t member, std::size_t stage) const;
  /// How many should go together: as many as keep copies from being waited for, and leave the other stages their share
  /// of work. The lock held.
  std::size_t share_of(std::size_t stage) const;
  /// A guess, which turns then correct: copying a block takes about as long as two passes through it.
  std::size_t first_share(const Stage& stage) const;
  /// Lets more go together where so many waited for copies a share of their time. The lock held.
  void learn(std::size_t stage, std::size_t passes, double waited);
  /// What a worker does whenever something may have changed for its member.
  void work(std::size_t member) noexcept;
  /// Does what is next, if anything. Returns whether more may wait that no task was posted for.
  bool do_next(std::size_t member) noexcept;
  /// Other work than passes.
  struct InterleavedTask {
    std::uint64_t came = 0;
    std::function<void()> work;
    std::promise<void> done;
  };
  /// The first of a member's other work: if it has its turn, or whoever's it is.
  enum class Order : std::uint8_t { InOrder, Any };
  std::optional<InterleavedTask> take_interleaved(std::size_t member, Order order) noexcept;
  static void run_interleaved(InterleavedTask task) noexcept;
  /// The pass that waits first before a stage, or null.
  std::shared_ptr<Pass> take_first(std::size_t stage) noexcept;
  /// What a GPU that streams waits for copies from here on; null for others.
  static std::shared_ptr<CopyWaits> waits_of(const Member& member);
  /// Has the device of a stage do its part of the passes, and send them on. Returns what it waits for copies, null
  /// where it fails.
  std::shared_ptr<CopyWaits> go_through(const Batch& batch) noexcept;
  void run_blocks(const Stage& stage, const Passes& passes, CopyWaits* waits);
  void leave(std::size_t stage, const std::shared_ptr<Pass>& pass);
  void finish(const Stage& stage, const std::shared_ptr<Pass>& pass);
  /// What a member sends to another is that one's to answer for.
  static at::Tensor send(HandOver& transfer, const at::Tensor& tensor, const Member& from, const Member& to);
  /// Goes on with a pass once what `from` sent to `to` is there.
  void follow(const Member& from, const Member& to, std::shared_ptr<HandOver> transfer, std::shared_ptr<Pass> pass,
              std::function<void()> then);
  /// Once a GPU has done what it was given last, its worker gives it more. False: nobody follows, for lack of memory.
  bool follow_batch(std::size_t stage, std::size_t passes, std::shared_ptr<const CopyWaits> waits) noexcept;
  void batch_ends(std::size_t stage, std::size_t passes, double waited) noexcept;
  void succeed(Pass& pass, at::Tensor prediction);
  static void fail(Pass& pass, const std::exception_ptr& error) noexcept;

  std::vector<Member> members_;
  std::vector<Stage> stages_;
  std::mutex mutex_;
  std::condition_variable pass_ends_, pass_comes_;
  std::vector<std::deque<std::shared_ptr<Pass>>> waiting_;  ///< before each stage
  std::vector<std::size_t> together_;                       ///< passes that should go through each stage, by its copies
  std::vector<int> batches_;                                ///< that each member with a follower works on
  std::vector<std::deque<InterleavedTask>> interleaved_;    ///< other work that waits for each member
  std::uint64_t comings_ = 0;                               ///< of passes to a stage, and of other work
  std::size_t in_flight_ = 0, tasks_ = 0;
  static constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
  std::size_t limit_ = kNoLimit;
};

}  // namespace mgpu
