#include "vae/team.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/hand_over.h"
#include "vae/band_work.h"

namespace mgpu {
namespace {

/// Runs each coder's steps on its rows of `image` [1, C, H, W], and puts the results together.
template <class Coder>
at::Tensor run_in_bands(std::span<const Coder> coders, const Team& team, const at::Tensor& image, const Bands& bands) {
  MGPU_CHECK_EQ(coders.size(), team.speeds.size());
  JointWork together;
  BandWork work(bands, team, together);
  std::vector<at::Tensor> parts(coders.size());
  team.run(together, coders.size(), [&](std::size_t i) {
    const Coder& coder = coders[i];
    const ImageRows rows = work.run(i, coder.steps(), work.rows(i, image, coder.device(), coder.dtype()));
    if (rows.values.defined()) parts[i] = image_of(rows);
    if (rows.values.defined() && i > 0) parts[i] = hand_over(parts[i], coders.front().device());
  });
  std::erase_if(parts, [](const at::Tensor& part) { return !part.defined(); });
  return parts.size() == 1 ? parts.front() : at::cat(parts, 2);
}

}  // namespace

Team Team::alone() {
  return {{1.0}, [](JointWork& together, std::size_t, const auto& work) { together.run(1, {}, work); }};
}

at::Tensor decode_in_bands(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z,
                           const std::optional<BandRules>& rules) {
  return run_in_bands(decoders, team, z, bands_of(decoders.front(), z, rules));
}

LatentDistribution encode_in_bands(std::span<const Encoder> encoders, const Team& team, const at::Tensor& image,
                                   const std::optional<BandRules>& rules) {
  return distribution_of(run_in_bands(encoders, team, image, bands_of(encoders.front(), image, rules)));
}

}  // namespace mgpu
