#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

#include "core/need.h"
#include "core/weights.h"
#include "vae/autoencoder.h"
#include "vae/team.h"

namespace mgpu {

/// An autoencoder's decoders, one for each device ("rank") of a team, which decode a picture together.
class Decoders {
 public:
  virtual ~Decoders() = default;
  /// Loads that rank's, on its device: once each, before the first picture. Several ranks may load at the same time.
  virtual void load(std::size_t rank, const Weights& weights) = 0;
  /// z [1, latent channels, h, w], without latent scale -> [1, 3, H, W], about -1..1, by a mode of decoder_need().
  virtual at::Tensor decode(const DecodeNeed& mode, const Team& team, const at::Tensor& z) const = 0;
};

/// Its encoders, likewise.
class Encoders {
 public:
  virtual ~Encoders() = default;
  virtual void load(std::size_t rank, const Weights& weights) = 0;
  /// image [1, 3, H, W] in -1..1 -> its distribution, by a mode of encoder_need().
  virtual LatentDistribution encode(const DecodeNeed& mode, const Team& team, const at::Tensor& image) const = 0;
};

}  // namespace mgpu
