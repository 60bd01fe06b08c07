#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/weights.h"
#include "vae/band_ops.h"
#include "vae/vae_sizes.h"

namespace mgpu {

/// A piece of a coder that runs by itself, and the prefix of its tensors in the file, e.g. "decoder.mid.block_1". It
/// may write to x.
struct AutoencoderStep {
  std::string name;
  std::function<ImageRows(ImageRows x, const BandOps& ops)> run;
};

/// The decoder of the autoencoder of latent diffusion: https://github.com/CompVis/latent-diffusion
/// (ldm/modules/diffusionmodules/model.py), in Flux's form https://github.com/black-forest-labs/flux (autoencoder.py).
class Decoder {
 public:
  /// Loads the decoder's tensors alone. Throws Error naming file and tensor where one is missing or of another shape
  /// than `sizes` say.
  Decoder(const VaeSizes& sizes, const Weights& weights);

  const VaeSizes& sizes() const { return sizes_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  /// What a decode runs, in order.
  const std::vector<AutoencoderStep>& steps() const { return steps_; }
  /// The first step of the last `levels` levels: the enlargement to the first of them.
  std::size_t first_step_of_last(int levels) const;
  /// The steps of each of these levels, the head's with the last.
  std::vector<std::span<const AutoencoderStep>> last_levels(int levels) const;

  /// z [B, latent channels, h, w] as the encoder made it (no latent scale) -> [B, 3, factor h, factor w], about -1..1,
  /// each image by itself. On device() and in dtype(); z may lie elsewhere. vae/team.h has it done by several devices.
  at::Tensor forward(const at::Tensor& z) const;

 private:
  VaeSizes sizes_;
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
  Encoder(const VaeSizes& sizes, const Weights& weights);

  const VaeSizes& sizes() const { return sizes_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  const std::vector<AutoencoderStep>& steps() const { return steps_; }
  /// The first step behind the first `levels` levels, which end with a reduction.
  std::size_t first_step_behind(int levels) const;
  /// The steps of each of these levels, the stem's with the first.
  std::vector<std::span<const AutoencoderStep>> first_levels(int levels) const;

  /// image [B, 3, H, W] in -1..1 -> [B, latent channels, H / factor, W / factor]; H and W are multiples of the factor.
  LatentDistribution forward(const at::Tensor& image) const;

 private:
  VaeSizes sizes_;
  at::ScalarType dtype_;
  at::Device device_;
  std::vector<AutoencoderStep> steps_;
};

/// The two halves of what an encoder's last step gives, [B, 2 * latent channels, h, w].
LatentDistribution distribution_of(const at::Tensor& moments);

/// Runs steps in order on one device's rows.
ImageRows run_steps(std::span<const AutoencoderStep> steps, ImageRows x, const BandOps& ops);

/// Rows of one image [1, C, H, W] as coders take them, and the image [1, C, R, W] of rows that they give.
ImageRows rows_of(const at::Tensor& image, const RowRange& rows, at::Device device, at::ScalarType dtype);
at::Tensor image_of(const ImageRows& rows);

}  // namespace mgpu
