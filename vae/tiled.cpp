#include "vae/tiled.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/hand_over.h"
#include "vae/band_work.h"
#include "vae/recorded_statistics.h"

namespace mgpu {
namespace {

struct Tile {
  RowRange rows, columns;
};

/// What decoding an image in tiles goes by; rows and columns where tiles begin, before the enlargement of the first
/// tiled level.
struct Layout {
  std::int64_t scale = 0;  ///< pixels a side that a row of those stands for
  std::int64_t rows = 0, columns = 0;
  std::vector<RowRange> across, down;
  std::int64_t margin = 0;  ///< pixels at a tile's edge that lack what lies behind it, as far as the overlap has them

  std::size_t count() const { return across.size() * down.size(); }
  Tile operator[](std::size_t index) const { return {down[index / across.size()], across[index % across.size()]}; }
};

Layout layout_of(const Decoder& decoder, const at::Tensor& z, const Tiling& tiling) {
  Layout out;
  out.scale = std::int64_t{1} << tiling.levels;
  const std::int64_t enlarged = decoder.sizes().factor() / out.scale;
  out.rows = z.size(2) * enlarged;
  out.columns = z.size(3) * enlarged;
  const std::int64_t tile = tiling.tile / out.scale;
  const int blocks = decoder.sizes().residual_blocks + 1;
  const std::int64_t shared = shared_pixels(tiling, blocks);
  out.down = cut_into_tiles(out.rows, tile, shared / out.scale);
  out.across = cut_into_tiles(out.columns, tile, shared / out.scale);
  out.margin = std::min(edge_reach(tiling.levels, blocks), shared / 2 - 1);
  return out;
}

ImageRows crop(const at::Tensor& values, const Tile& tile) {
  return {values.narrow(0, tile.rows.first, tile.rows.size())
              .narrow(1, tile.columns.first, tile.columns.size())
              .contiguous(),
          {}};
}

/// What lies on one device is one unit: no strip ends before it must.
BandRules undealt(BandRules rules) {
  rules.unit_values = std::numeric_limits<std::int64_t>::max();
  return rules;
}

/// Bands of what a coder is given in the middle of its way.
Bands bands_of(const at::Tensor& values, const BandRules& rules) {
  return {values.size(0), values.size(1), values.size(2), undealt(rules)};
}

/// The normalisations behind step `split`, as they are where the picture is no larger than a tile. Not a sample of the
/// picture's windows: single pixels of high activation, which trained autoencoders have, carry much of a group's
/// variance, and windows miss them.
NormTape small_picture_norms(const Decoder& decoder, std::size_t split, const at::Tensor& z, std::int64_t tile,
                             const BandRules& rules) {
  const std::int64_t most = std::max<std::int64_t>(tile / decoder.sizes().factor(), 1);
  const std::int64_t longer = std::max(z.size(2), z.size(3));
  const auto side = [&](std::int64_t whole) {
    return std::max<std::int64_t>(whole * most / std::max(longer, most), 1);
  };
  // By picking values, which keeps their distribution; averages would not.
  const at::Tensor small = at::upsample_nearest2d(z, {side(z.size(2)), side(z.size(3))});
  const Bands bands(small.size(2), small.size(3), decoder.sizes().channels.back(), undealt(rules));
  const std::span<const AutoencoderStep> steps = decoder.steps();
  MeasuredStatistics measured;
  ImageRows x = rows_of(small, {0, small.size(2)}, decoder.device(), decoder.dtype());
  x = run_steps(steps.first(split), std::move(x), BandOps(bands, measured));
  NormTape out;
  RecordingStatistics recording(out);
  run_steps(steps.subspan(split), std::move(x), BandOps(bands, recording));
  return out;
}

/// All devices' rows, on each of them.
at::Tensor gather_rows(Exchange& exchange, std::size_t rank, const at::Tensor& mine, const at::Tensor& like) {
  if (exchange.ranks() == 1) return mine;
  const Exchange::Round round = exchange.show(rank, {mine});
  std::vector<at::Tensor> all;
  for (std::size_t i = 0; i < exchange.ranks(); ++i) {
    const at::Tensor rows = round.take(i, 0, like);
    if (rows.defined()) all.push_back(rows);
  }
  return at::cat(all, 0);
}

at::Tensor blend(const std::vector<at::Tensor>& tiles, const Layout& layout) {
  const at::Tensor& first = tiles.front();
  const at::TensorOptions options = first.options().dtype(at::kFloat);
  at::Tensor out = at::zeros({1, 3, layout.rows * layout.scale, layout.columns * layout.scale}, options);
  const auto in_pixels = [&](std::vector<RowRange> ranges) {
    for (RowRange& range : ranges) range = {range.first * layout.scale, range.last * layout.scale};
    return ranges;
  };
  const std::vector<RowRange> down = in_pixels(layout.down), across = in_pixels(layout.across);
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const std::size_t row = i / across.size(), column = i % across.size();
    const at::Tensor counts =
        feather(down, row, layout.margin).unsqueeze(1) * feather(across, column, layout.margin).unsqueeze(0);
    out.narrow(2, down[row].first, down[row].size())
        .narrow(3, across[column].first, across[column].size())
        .addcmul_(tiles[i].to(at::kFloat), counts.to(first.device()));
  }
  return out;
}

}  // namespace

at::Tensor feather(std::span<const RowRange> tiles, std::size_t index, std::int64_t margin) {
  const RowRange& tile = tiles[index];
  at::Tensor out = at::ones({tile.size()}, at::kFloat);
  // The weight of the latter of two neighbours through what they share.
  const auto ramp = [margin](const RowRange& before, const RowRange& after) {
    const std::int64_t shared = before.last - after.first;
    const at::Tensor place = at::arange(shared, at::kFloat) + 0.5;
    return ((place - static_cast<double>(margin)) / static_cast<double>(shared - 2 * margin)).clamp(0.0, 1.0);
  };
  if (index > 0) {
    const at::Tensor rise = ramp(tiles[index - 1], tile);
    out.narrow(0, 0, rise.size(0)).mul_(rise);
  }
  if (index + 1 < tiles.size()) {
    const at::Tensor rise = ramp(tile, tiles[index + 1]);
    out.narrow(0, tile.size() - rise.size(0), rise.size(0)).mul_(1 - rise);
  }
  return out;
}

at::Tensor decode_in_tiles(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z,
                           const Tiling& tiling, const std::optional<BandRules>& given_rules) {
  const BandRules rules = given_rules.value_or(band_rules(decoders.front().device().is_cuda()));
  const Layout layout = layout_of(decoders.front(), z, tiling);
  if (layout.count() == 1) return decode_in_bands(decoders, team, z, rules).to(at::kFloat);
  const std::vector<RowRange> shares = deal_units(static_cast<std::int64_t>(layout.count()), team.speeds);
  JointWork together;
  BandWork whole(bands_of(decoders.front(), z, rules), team, together);
  Exchange exchange(decoders.size(), together);
  std::vector<at::Tensor> tiles(layout.count());
  team.run(together, decoders.size(), [&](std::size_t rank) {
    const Decoder& decoder = decoders[rank];
    const std::span<const AutoencoderStep> steps = decoder.steps();
    const std::size_t split = decoder.first_step_of_last(tiling.levels);
    const NormTape norms = small_picture_norms(decoder, split, z, tiling.tile, rules);
    at::Tensor values =
        whole.run(rank, steps.first(split), whole.rows(rank, z, decoder.device(), decoder.dtype())).values;
    values = gather_rows(exchange, rank, values, at::empty({0}, at::TensorOptions(decoder.device())));
    for (std::int64_t i = shares[rank].first; i < shares[rank].last; ++i) {
      const auto index = static_cast<std::size_t>(i);
      RecordedStatistics statistics(norms);
      ImageRows tile = crop(values, layout[index]);
      const BandOps ops(bands_of(tile.values, rules), statistics);
      tiles[index] = image_of(run_steps(steps.subspan(split), std::move(tile), ops));
      if (rank > 0) tiles[index] = hand_over(tiles[index], decoders.front().device());
    }
  });
  return blend(tiles, layout);
}

}  // namespace mgpu
