#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>

#include "shard/engine.h"
#include "vae/coders.h"

namespace mgpu {

/// A job's autoencoder: on one device or on several, by the plan's way; a tiny one always on one. What it does is done
/// within Engine::at_autoencoder().
class VaeRunner {
 public:
  /// `note` is told where a picture is decoded otherwise than planned; without it what fails fails.
  VaeRunner(Engine& engine, std::function<void(const std::string&)> note);

  /// Loads the decoders, if they are not there yet.
  void load_decoders();
  /// Decodes nothing of about that size, on a GPU, which loads its kernels: see WarmUpShape.
  void warm_up(const WarmUpShape& warm_up_shape) const;
  /// A picture's latent [1, C, h, w] -> [3, H, W] fp32 in 0..1 in main memory. In tiles where memory does not suffice
  /// for the plan's way.
  at::Tensor decode(const at::Tensor& latent) const;

  void load_encoders();
  void drop_encoders();
  /// How the encoders, which are loaded, encode a picture together: see vae/codec.h.
  LatentDistribution encode(const at::Tensor& image) const;

 private:
  Team team(Phase phase) const;
  /// z [1, C, h, w], without latent scale -> [1, 3, H, W].
  at::Tensor run_decoders(const DecodeNeed& mode, const at::Tensor& z) const;
  at::Tensor decode_by(const DecodeNeed& mode, const at::Tensor& latent) const;

  Engine& engine_;
  std::function<void(const std::string&)> note_;
  std::unique_ptr<Decoders> decoders_;
  std::unique_ptr<Encoders> encoders_;
};

}  // namespace mgpu
