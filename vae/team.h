#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/joint_work.h"
#include "vae/autoencoder.h"

namespace mgpu {

/// The devices that code an image together, each ("rank") with a coder of its own.
struct Team {
  /// Of each rank: images are dealt in proportion.
  std::vector<double> speeds;
  /// Runs work(0) ... work(ranks - 1) at the same time, each on its rank's device, by JointWork::run(): throws what
  /// failed first.
  std::function<void(JointWork& together, std::size_t ranks, const std::function<void(std::size_t rank)>& work)> run;

  /// One device: the calling thread's.
  static Team alone();
};

/// The image's rows dealt to the team: edge rows, sums for the normalisations, attention's keys and values are
/// exchanged. The result has the same bits on any number of devices of one kind. z [1, latent channels, h, w] -> [1, 3,
/// H, W] on the first device. Small images use fewer devices than there are: a device computes whole units (Bands).
/// `rules`: band_rules() of the first device, but in tests.
at::Tensor decode_in_bands(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z,
                           const std::optional<BandRules>& rules = {});

/// Likewise. image [1, 3, H, W] in -1..1; H and W are multiples of the factor.
LatentDistribution encode_in_bands(std::span<const Encoder> encoders, const Team& team, const at::Tensor& image,
                                   const std::optional<BandRules>& rules = {});

}  // namespace mgpu
