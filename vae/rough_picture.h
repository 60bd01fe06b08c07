#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/latent_rgb.h"

namespace mgpu {

/// What a latent [1, C, h, w] shows, without an autoencoder: one pixel a position, [1, 3, h, w] fp32 in 0..1.
at::Tensor rough_picture(const at::Tensor& latent, const LatentRgb& rgb);

/// An image [1, 3, H, W] made smaller, its proportions kept, so that no side is longer than `side`.
at::Tensor shrink(const at::Tensor& image, std::int64_t side);

}  // namespace mgpu
