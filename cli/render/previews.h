#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>

#include "cli/files/pixels.h"
#include "cli/render/picture_tracker.h"
#include "cli/render/vae_runner.h"
#include "core/progress.h"
#include "shard/engine.h"

namespace mgpu {

/// Shows what sampling is at: every so many steps a small picture of the prediction beside each picture of a run. With
/// the job's autoencoder where that is a tiny one, else by its latent format's rough colours. For several threads.
class Previews {
 public:
  /// `every` 0: none. The coder's decoders are loaded.
  Previews(int every, Engine& engine, const VaeRunner& vae_runner, Progress& progress)
      : every_(every), engine_(engine), vae_runner_(vae_runner), progress_(progress) {}

  /// A step of the run is done, from 1; denoised [batch, C, h, w] is its prediction of the clean latent. After the last
  /// there is none: the pictures follow. A preview that fails ends the previews, with a note, and no picture; a lost
  /// device is thrown.
  void at_step(const Group& group, int step, int steps, const at::Tensor& denoised);

 private:
  Rgb8 draw(const at::Tensor& latent) const;

  std::atomic<int> every_;
  Engine& engine_;
  const VaeRunner& vae_runner_;
  Progress& progress_;
};

}  // namespace mgpu
