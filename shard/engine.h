#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/allocation_limit.h"
#include "core/joint_work.h"
#include "core/memory.h"
#include "core/model_set.h"
#include "core/models/diffusion_model.h"
#include "core/ops.h"
#include "core/text/conditioning.h"
#include "core/text/encoder_pieces.h"
#include "core/text/textual_inversion.h"
#include "shard/meter.h"
#include "shard/offloaded_bytes.h"
#include "shard/pipeline.h"
#include "shard/plan.h"
#include "shard/worker.h"

namespace mgpu {

/// A prompt, and the layer of CLIP that it is to be read from (layer_under()).
struct PromptText {
  std::string text;
  std::int64_t clip_skip = 0;

  auto operator<=>(const PromptText&) const = default;
};

/// Runs a job's models on the devices of its plan, each with a worker of its own. Components take turns: encoders leave
/// their device before the diffusion model comes.
class Engine {
 public:
  /// While it lives the allocations of the plan's devices are limited as the plan says, those of others are not.
  Engine(ModelSet models, const ComputeDtypes& dtypes, Plan plan);

  const Plan& plan() const { return plan_; }
  const ModelSet& models() const { return models_; }
  at::ScalarType diffusion_type() const { return dtypes_.unet; }  ///< what the diffusion model computes in
  /// Of the plan's device of that number.
  const Meter& meter(std::size_t device = 0) const { return devices_[device]->meter; }

  /// The most bytes of blocks that a donor keeps in each phase.
  PhaseBytes offloaded(const DeviceId& donor) const;

  /// What every device is at. From any thread.
  std::vector<DeviceStatus> status() const;

  /// Runs `work` as a phase of every device, whose highest memory is the phase's peak. Returns the seconds that it
  /// took. Other threads may do so at the same time.
  double measure(Phase phase, const std::function<void()>& work);

  /// The devices that hold the autoencoder and code pictures together, and their speeds.
  std::vector<DeviceId> vae_devices() const;
  std::vector<double> vae_speeds() const;
  /// Runs `work` on the first coder, once no pass is there, as a phase of that device. Returns the seconds that it took
  /// there. `work` leaves nothing queued on the device.
  double at_autoencoder(Phase phase, const std::function<void()>& work);
  /// Within that work: runs work(0) here and work(1) ... on the other coders, in their turns, as a phase of theirs, and
  /// waits for all. They may wait for each other in the exchanges of `together`. Throws what failed first.
  void on_vae_devices(Phase phase, JointWork& together, const std::function<void(std::size_t vae_device)>& work);

  /// What the diffusion model is told of each prompt. Loads the text encoders one after another, every device its
  /// layers of one at the same time, uses them and lets them go.
  std::vector<Conditioning> encode(std::span<const PromptText> prompts,
                                   const TextualInversions& inversions = TextualInversions());

  /// Loads the diffusion model, every device its blocks at the same time, if it is not there yet; GPUs rehearse it. It
  /// is told of the texts of runs to come.
  void load_diffusion(const WarmUpShape& warm_up_shape = {}, std::span<const UpcomingConditioning> upcoming = {});
  /// The same, and runs `decoders`, which loads the autoencoder, as at_autoencoder() does: on a GPU meanwhile.
  void load(const WarmUpShape& warm_up_shape, std::span<const UpcomingConditioning> upcoming,
            const std::function<void()>& decoders);

  using Run = std::shared_ptr<Pipeline::Run>;
  /// Computes ahead what stays the same through a run. The conditionings must outlive it.
  Run begin_run(std::span<const double> timesteps, std::span<const RunConditioning> texts, const RunFacts& facts);

  /// x [B, C, h, w] fp32 at a timestep, told each of the run's texts of these numbers -> predictions, likewise, one a
  /// text. Every image with every text is a pass of its own; as many as may are on their way at once, and none once it
  /// throws. For several runs at once, each in a thread of its own.
  std::vector<at::Tensor> evaluate(const Run& run, const at::Tensor& x, double timestep,
                                   std::span<const std::size_t> texts);

  /// The device of the diffusion model's first block, where conditionings lie and a run should keep its latent.
  const DeviceId& latent_device() const;
  /// Passes on their way at once, of one run or several: so many keep every device at work and share what is streamed,
  /// as far as the plan has memory for them.
  std::size_t passes_at_once() const;
  /// Whether one device takes pass after pass, in the thread that asks for them.
  bool goes_one_by_one() const;
  /// From here on a pass begins when the one before has ended: slower, in the least memory.
  void save_memory();

  /// Weights of the autoencoder on a coder, for the codec to load.
  Weights vae_weights(std::size_t vae_device) const;

  /// Gives cached memory of every device back.
  void release_cached() const;

 private:
  struct Device {
    Device(const DeviceId& device, std::uint64_t limit, Worker::Runs runs)
        : id(device), torch(torch_device(device)), allocations(device, limit), meter(device), worker(device, runs) {
      if (device.is_cuda() && runs == Worker::Runs::InThread) follower.emplace(device, runs);
    }
    DeviceId id;
    at::Device torch;
    AllocationLimit allocations;
    Meter meter;
    Worker worker;
    std::optional<Worker> follower;  ///< as Pipeline::Member's
    /// Of the first coder, a GPU: codes pictures while the worker waits. Libraries keep what they have found out of
    /// convolutions a thread, and this one finds it out while the worker loads the diffusion model.
    std::optional<Worker> decode_worker;
  };

  Device& vae_device(std::size_t number) const { return *devices_[vae_devices_[number]]; }
  /// A text encoder as the plan spreads it.
  std::vector<EncoderPiece> encoder_pieces(const Part& encoder);
  /// What an encoder gives, brought from its last layer's device; what is allocated then is home()'s.
  void bring_to_latent_device(EncodedText& text) const;
  /// Index of the plan's device that has a block of the diffusion model, and of that which has the first.
  std::size_t owner_of(const DiffusionBlock& block) const;
  std::size_t latent_device_index() const;
  /// Loads the blocks of the diffusion model that the plan gives a device.
  void load_member(std::size_t device, const std::vector<DiffusionBlock>& blocks, const WarmUpShape& warm_up_shape,
                   Pipeline::Member& member);
  /// Does the first coder's work as a phase of its device, in its thread if it has one for that. Returns the seconds
  /// that it took there.
  double code(Phase phase, const std::function<void()>& work);

  /// Runs `work` in a device's worker, which passes go before. Returns what it returns, throws what it throws.
  double between_passes(Device& device, const std::function<double()>& work);

  ModelSet models_;
  OffloadedBytes offloaded_encoders_;
  ComputeDtypes dtypes_;
  Plan plan_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::size_t> vae_devices_;  ///< of the devices
  std::unique_ptr<Pipeline> pipeline_;
  bool saves_memory_ = false;
};

}  // namespace mgpu
