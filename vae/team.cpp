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
  BandWork work(bands, team);
  std::vector<at::Tensor> parts(coders.size());
  team.run(coders.size(), [&](std::size_t i) {
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
  return {{1.0}, [](std::size_t, const auto& work) { work(0); }};
}

at::Tensor decode_in_bands(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z,
                           const std::optional<BandRules>& rules) {
  const Decoder& first = decoders.front();
  MGPU_CHECK_EQ(z.size(1), first.sizes().latent_channels);
  const Bands bands(z.size(2), z.size(3), first.sizes().channels.back(),
                    rules.value_or(band_rules(first.device().is_cuda())));
  return run_in_bands(decoders, team, z, bands);
}

LatentDistribution encode_in_bands(std::span<const Encoder> encoders, const Team& team, const at::Tensor& image,
                                   const std::optional<BandRules>& rules) {
  const VaeSizes& sizes = encoders.front().sizes();
  const std::int64_t factor = sizes.factor(), rows = image.size(2) / factor, columns = image.size(3) / factor;
  MGPU_CHECK(rows * factor == image.size(2) && columns * factor == image.size(3), "{}x{} is not a multiple of {}",
             image.size(3), image.size(2), factor);
  const Bands bands(rows, columns, sizes.channels.back(),
                    rules.value_or(band_rules(encoders.front().device().is_cuda())));
  return distribution_of(run_in_bands(encoders, team, image, bands));
}

}  // namespace mgpu
