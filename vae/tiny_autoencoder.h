#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "core/weights.h"
#include "vae/tiny_vae_sizes.h"

namespace mgpu {

/// The decoder of a tiny autoencoder: https://github.com/madebyollin/taesd (taesd.py).
class TinyDecoder {
 public:
  /// Throws Error naming file and tensor where one is missing.
  TinyDecoder(const TinyVaeSizes& sizes, const Weights& weights);

  /// latent [1, latent channels, h, w] as the diffusion model knows it, scaled -> [1, 3, 8 h, 8 w], about 0..1. On the
  /// weights' device and in their type; the latent may lie elsewhere.
  at::Tensor forward(const at::Tensor& latent) const;

 private:
  at::TensorOptions options_;
  std::vector<std::function<at::Tensor(at::Tensor)>> layers_;
};

/// The encoder that belongs to it.
class TinyEncoder {
 public:
  /// As TinyDecoder's.
  TinyEncoder(const TinyVaeSizes& sizes, const Weights& weights);

  /// image [1, 3, H, W] in 0..1 -> its latent [1, latent channels, H / 8, W / 8], scaled. H and W are multiples of 8.
  at::Tensor forward(const at::Tensor& image) const;

 private:
  at::TensorOptions options_;
  std::vector<std::function<at::Tensor(at::Tensor)>> layers_;
};

}  // namespace mgpu
