#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string_view>

#include "core/ops.h"
#include "vae/autoencoder.h"

namespace mgpu {

/// How a family of diffusion models scales the autoencoder's latents: (latent - shift) * scale is what it samples. The
/// autoencoder's file does not tell: SD 1's and SDXL's have the same tensors.
struct LatentFormat {
  std::string_view family;
  std::int64_t channels = 0;
  double scale = 1.0;
  double shift = 0.0;
};

/// One row a family.
std::span<const LatentFormat> latent_formats();

/// The row of that family, or null.
const LatentFormat* find_latent_format(std::string_view family);

/// The model's latents [B, C, h, w] -> images [B, 3, H, W], fp32 in 0..1, on the decoder's device. Each image is
/// decoded by itself, so that it has the same bits in every batch. Throws Error (an image failed) where one is not
/// finite.
at::Tensor decode(const at::Tensor& latent, const LatentFormat& format, const Decoder& decoder, const Ops& ops);

/// Images [B, 3, H, W] in 0..1 -> the model's latents [B, C, H / factor, W / factor] in fp32, on the encoder's device:
/// the distribution's mode, nothing is drawn. H and W are multiples of the factor.
at::Tensor encode(const at::Tensor& image, const LatentFormat& format, const Encoder& encoder, const Ops& ops);

}  // namespace mgpu
