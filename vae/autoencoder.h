#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "core/ops.h"
#include "core/weights.h"

namespace mgpu {

/// The sizes of an autoencoder, all of which its tensors' names and shapes tell.
struct AutoencoderSizes {
  std::int64_t latent_channels = 0;
  std::vector<std::int64_t> channels;  ///< of each level, the full resolution first
  int blocks = 0;                      ///< residual blocks a level of the encoder; the decoder has one more
  bool quant = false;                  ///< 1x1 convolutions between latent and coders (Stable Diffusion 1, 2 and XL)

  /// Pixels a side that one latent value stands for.
  std::int64_t factor() const { return std::int64_t{1} << (channels.size() - 1); }
};

/// Reads the sizes from the file's header. Throws Error naming the file where it holds no image autoencoder under the
/// original names, or one of a form that we do not know.
AutoencoderSizes autoencoder_sizes(const Weights& weights);

/// A piece of a coder that runs by itself, and the prefix of its tensors in the file, e.g. "decoder.mid.block_1".
/// x [B, C, H, W] -> [B, C', H', W'].
struct AutoencoderStep {
  std::string name;
  std::function<at::Tensor(const at::Tensor& x, const Ops& ops)> run;
};

/// The decoder of the autoencoder of latent diffusion: https://github.com/CompVis/latent-diffusion
/// (ldm/modules/diffusionmodules/model.py), in Flux's form https://github.com/black-forest-labs/flux (autoencoder.py).
class Decoder {
 public:
  /// Loads the decoder's tensors alone. Throws Error naming file and tensor where one is missing or of another shape
  /// than `sizes` say.
  Decoder(const AutoencoderSizes& sizes, const Weights& weights);

  const AutoencoderSizes& sizes() const { return sizes_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  /// What forward() runs, in order.
  const std::vector<AutoencoderStep>& steps() const { return steps_; }

  /// z [B, latent channels, h, w] as the encoder made it (no latent scale) -> [B, 3, factor h, factor w], about -1..1.
  /// On device() and in dtype(); z may lie elsewhere.
  at::Tensor forward(const at::Tensor& z, const Ops& ops) const;

 private:
  AutoencoderSizes sizes_;
  at::ScalarType dtype_;
  at::Device device_;
  std::vector<AutoencoderStep> steps_;
};

/// A diagonal normal distribution over latents.
struct LatentDistribution {
  at::Tensor mean;    ///< [B, latent channels, h, w]; also the mode
  at::Tensor logvar;  ///< likewise, within -30..20
};

/// The encoder that belongs to Decoder.
class Encoder {
 public:
  /// As Decoder's.
  Encoder(const AutoencoderSizes& sizes, const Weights& weights);

  const AutoencoderSizes& sizes() const { return sizes_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  const std::vector<AutoencoderStep>& steps() const { return steps_; }

  /// image [B, 3, H, W] in -1..1 -> [B, latent channels, H / factor, W / factor], rounded down.
  LatentDistribution forward(const at::Tensor& image, const Ops& ops) const;

 private:
  AutoencoderSizes sizes_;
  at::ScalarType dtype_;
  at::Device device_;
  std::vector<AutoencoderStep> steps_;
};

}  // namespace mgpu
