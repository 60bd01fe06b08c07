#pragma once

#include <cstdint>

#include "core/latent_rgb.h"

namespace mgpu {

/// What a diffusion model predicts.
enum class Prediction : std::uint8_t {
  Velocity,  ///< flow: noise - latent, so denoised = x - sigma * v
  Epsilon,   ///< the noise, of x / sqrt(sigma^2 + 1)
  V,         ///< Salimans & Ho 2022 (arXiv:2202.00512), of x / sqrt(sigma^2 + 1)
};

/// How a family of diffusion models scales the autoencoder's latents: (encoded - shift) * scale is what it samples. The
/// autoencoder's file does not tell: SD 1's and SDXL's have the same tensors.
struct LatentFormat {
  std::int64_t channels = 0;
  std::int64_t factor = 8;  ///< pixels a side that one latent value stands for
  double scale = 1.0;
  double shift = 0.0;
  const LatentRgb* rgb = nullptr;  ///< roughly its colours
};

/// What a diffusion model was trained with and its sampling needs.
struct Training {
  Prediction prediction = Prediction::Velocity;
  int timesteps = 0;  ///< noise levels in its table
  double mu = 0;      ///< of flow models: ComfyUI's constant time shift (log), 0 for none
  LatentFormat latent;
  int size_multiple = 0;       ///< widths and heights are multiples of this
  bool zero_terminal = false;  ///< betas rescaled so that the last level has no signal (Lin et al., arXiv:2305.08891)
};

}  // namespace mgpu
