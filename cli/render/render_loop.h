#pragma once

#include <exception>
#include <mutex>
#include <optional>
#include <vector>

#include "cli/render/encoded_inputs.h"
#include "cli/render/picture_tracker.h"
#include "cli/render/previews.h"
#include "cli/render/run_queue.h"
#include "cli/render/vae_runner.h"
#include "cli/render/writer_threads.h"
#include "core/cancel.h"
#include "core/progress.h"
#include "shard/engine.h"

namespace mgpu {

/// What is behind a failure: where a weight file has changed meanwhile, that, since any numbers may have come of it.
std::exception_ptr cause_of(const std::exception_ptr& thrown, const ModelSet& models);

/// What runs are rendered with.
struct Rendering {
  const Job& job;
  Engine& engine;               ///< its diffusion model loaded
  const VaeRunner& vae_runner;  ///< its decoders loaded
  const EncodedInputs& inputs;
  PictureTracker& pictures;
  Progress& progress;
  int preview = 0;  ///< steps from one preview to the next; 0: none
};

/// Renders runs: samples as many side by side as keep the devices at work, decodes each between the passes of the
/// others, and has the pictures written meanwhile. What fails in a run fails that run alone, unless the device is lost.
class RenderLoop {
 public:
  explicit RenderLoop(const Rendering& with)
      : with_(with), previews_(with.preview, with.engine, with.vae_runner, with.progress) {}

  /// Once, for the pictures that are open. Returns what of memory was lacking for those that still are, in the end.
  /// Throws what ended all: Interrupted, or a lost device's failure; what was decoded by then is written.
  std::optional<Failure> render();

 private:
  void stop_if_ended() const;
  /// What one sampler thread does: run after run.
  void serve() noexcept;
  void render_run(std::unique_ptr<RunQueue::Slot> slot);
  at::Tensor sample_run(const Group& group);
  void finish(Entry& entry, const at::Tensor& latent);
  /// Nothing more is begun; render() throws the first of these.
  void end(const std::exception_ptr& thrown) noexcept;
  /// Says what came of pictures that could not be finished.
  void settle(const Group& group, const std::exception_ptr& thrown);

  Rendering with_;
  Previews previews_;
  std::vector<Group> runs_;
  std::optional<RunQueue> queue_;
  std::optional<WriterThreads> writer_;
  std::mutex mutex_;  // of what follows
  std::optional<Failure> shortage_;
  std::exception_ptr end_;
};

}  // namespace mgpu
