#include "vae/band_work.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "vae/team.h"

namespace mgpu {
namespace {

/// Devices with a share.
std::vector<std::size_t> with_units(const std::vector<RowRange>& shares) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < shares.size(); ++i)
    if (shares[i].size() > 0) out.push_back(i);
  return out;
}

}  // namespace

Bands bands_of(const Decoder& decoder, const at::Tensor& z, const std::optional<BandRules>& rules) {
  MGPU_CHECK_EQ(z.size(1), decoder.sizes().latent_channels);
  return {z.size(2), z.size(3), decoder.sizes().channels.back(),
          rules.value_or(band_rules(decoder.device().is_cuda()))};
}

Bands bands_of(const Encoder& encoder, const at::Tensor& image, const std::optional<BandRules>& rules) {
  const std::int64_t factor = encoder.sizes().factor(), rows = image.size(2) / factor, columns = image.size(3) / factor;
  MGPU_CHECK(rows * factor == image.size(2) && columns * factor == image.size(3), "{}x{} is not a multiple of {}",
             image.size(3), image.size(2), factor);
  return {rows, columns, encoder.sizes().channels.back(), rules.value_or(band_rules(encoder.device().is_cuda()))};
}

BandWork::BandWork(const Bands& bands, const Team& team, JointWork& together)
    : bands_(bands),
      shares_(deal_units(bands.units(), team.speeds)),
      workers_(with_units(shares_)),
      exchange_(workers_.size(), together) {}

std::optional<std::size_t> BandWork::rank_of(std::size_t device) const {
  const auto own = std::ranges::find(workers_, device);
  if (own == workers_.end()) return std::nullopt;
  return static_cast<std::size_t>(own - workers_.begin());
}

ImageRows BandWork::rows(std::size_t device, const at::Tensor& image, at::Device on, at::ScalarType dtype) {
  if (!rank_of(device)) return {};
  return rows_of(image, bands_.rows(shares_[device], image.size(3)), on, dtype);
}

ImageRows BandWork::run(std::size_t device, std::span<const AutoencoderStep> steps, ImageRows rows) {
  const std::optional<std::size_t> rank = rank_of(device);
  if (!rank) return {};
  MeasuredStatistics statistics;
  return run_steps(steps, std::move(rows), BandOps(bands_, shares_[device], statistics, exchange_, *rank));
}

at::Tensor BandWork::gather(std::size_t device, const at::Tensor& mine) {
  const std::optional<std::size_t> rank = rank_of(device);
  if (!rank || !mine.defined() || exchange_.ranks() == 1) return mine;
  const Exchange::Round round = exchange_.show(*rank, {mine});
  std::vector<at::Tensor> all;
  for (std::size_t i = 0; i < exchange_.ranks(); ++i) all.push_back(round.take(i, 0, mine));
  return at::cat(all, 0);
}

ImageRows BandWork::gather(std::size_t device, ImageRows rows) {
  return {gather(device, rows.values), gather(device, rows.sums)};
}

ImageRows BandWork::own(std::size_t device, const ImageRows& all) const {
  if (!all.values.defined()) return {};
  const RowRange mine = bands_.rows(shares_[device], all.width());
  const auto narrow = [&](const at::Tensor& rows) {
    return rows.defined() ? rows.narrow(0, mine.first, mine.size()) : rows;
  };
  return {narrow(all.values), narrow(all.sums)};
}

}  // namespace mgpu
