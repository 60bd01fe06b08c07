#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "vae/autoencoder.h"
#include "vae/team.h"

namespace mgpu {

/// How an image is decoded tile by tile.
struct Tiling {
  std::int64_t tile = 1024;    ///< pixels a side, at most
  std::int64_t overlap = 128;  ///< pixels at least that neighbours share; a third of a tile at most
  int levels = 2;              ///< the decoder's last, that go tile by tile; what lies before is decoded whole
};

/// A side cut into as few tiles as will do, all as large and no larger than needed, evenly spread.
std::vector<RowRange> cut_into_tiles(std::int64_t side, std::int64_t tile, std::int64_t overlap);

/// What a tile counts for along a side, [tile]: 1, but where it meets a neighbour a ramp that the neighbour's completes
/// to 1. The outermost `margin` pixels there, which lack what lies around them, count for nothing.
at::Tensor feather(std::span<const RowRange> tiles, std::size_t index, std::int64_t margin);

/// The last levels tile by tile, blended where tiles overlap: less memory, about the same image. The levels before,
/// with their attention over all of the image, are decoded in bands; then group normalisation's statistics are
/// estimated from a sample of windows all over the image, and used in every tile, so that no tile differs from its
/// neighbours. An image that is no larger than a tile is decoded in bands. The result has the same bits on any number
/// of devices of one kind. z [1, latent channels, h, w] -> [1, 3, H, W] in fp32 on the first device.
at::Tensor decode_in_tiles(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z,
                           const Tiling& tiling, const BandRules& rules = {});

}  // namespace mgpu
