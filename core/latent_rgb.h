#pragma once

#include <array>
#include <span>

namespace mgpu {

/// Roughly what a latent shows: a pixel's colours, in about -1..1, are its values times the factors, plus the bias.
struct LatentRgb {
  std::span<const std::array<float, 3>> factors;  ///< red, green and blue of each latent channel
  std::array<float, 3> bias{};
};

extern const LatentRgb kStableDiffusionRgb;  ///< of SD 1.x and 2.x
extern const LatentRgb kSdxlRgb;
extern const LatentRgb kFluxRgb;

}  // namespace mgpu
