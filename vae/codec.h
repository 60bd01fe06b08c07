#pragma once

#include <ATen/core/Tensor.h>

#include "core/family.h"
#include "core/ops.h"
#include "vae/autoencoder.h"

namespace mgpu {

/// The model's latents [B, C, h, w] -> images [B, 3, H, W], fp32 in 0..1, on the decoder's device. Each image is
/// decoded by itself, so that it has the same bits in every batch. Throws Error (an image failed) where one is not
/// finite.
at::Tensor decode(const at::Tensor& latent, const LatentFormat& format, const Decoder& decoder, const Ops& ops);

/// Images [B, 3, H, W] in 0..1 -> the model's latents [B, C, H / factor, W / factor] in fp32, on the encoder's device:
/// the distribution's mode, nothing is drawn. H and W are multiples of the factor.
at::Tensor encode(const at::Tensor& image, const LatentFormat& format, const Encoder& encoder, const Ops& ops);

}  // namespace mgpu
