#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "core/training.h"
#include "vae/autoencoder.h"

namespace mgpu {

/// How one image is decoded: z [1, latent channels, h, w], without latent scale -> [1, 3, H, W], about -1..1.
using Decoding = std::function<at::Tensor(const at::Tensor& z)>;
/// How one is encoded: image [1, 3, H, W] in -1..1 -> its distribution.
using Encoding = std::function<LatentDistribution(const at::Tensor& image)>;

/// The model's latents [B, C, h, w] -> images [B, 3, H, W], fp32 in 0..1. Each image is
/// decoded by itself, so that it has the same bits in every batch. Throws Error (an image failed) where one is not
/// finite.
at::Tensor decode(const at::Tensor& latent, const LatentFormat& format, const Decoding& decoding);

/// Images [B, 3, H, W] in 0..1 -> the model's latents [B, C, H / factor, W / factor] in fp32:
/// the distribution's mode, nothing is drawn. H and W are multiples of the factor.
at::Tensor encode(const at::Tensor& image, const LatentFormat& format, const Encoding& encoding);

/// A mask in pixels [1, 1, H, W] at a latent's size, [1, 1, height, width]: bilinear between the nearest four, as
/// ComfyUI resizes masks.
at::Tensor latent_mask(const at::Tensor& mask, std::int64_t height, std::int64_t width);

/// What an inpaint UNet takes beside the noisy latent, [1, 1 + C, H / factor, W / factor] fp32:
/// the mask (rounded to 0 and 1) and the latent of `image` [1, 3, H, W] in 0..1 with grey where mask [1, 1, H, W] is
/// above a half. Reference: ComfyUI's InpaintModelConditioning (nodes.py) and concat_cond (comfy/model_base.py).
at::Tensor inpaint_channels(const at::Tensor& image, const at::Tensor& mask, const LatentFormat& format,
                            const Encoding& encoding);

/// The same for a picture without init image, of Stable Diffusion's four latent channels: all is masked, and the latent
/// is about a grey picture's. [1, 5, height, width] fp32 on the CPU.
at::Tensor blank_inpaint_channels(std::int64_t height, std::int64_t width);

}  // namespace mgpu
