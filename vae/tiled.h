#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/tiling.h"
#include "vae/autoencoder.h"
#include "vae/team.h"

namespace mgpu {

/// What a tile counts for along a side, [tile]: 1, but where it meets a neighbour a ramp that the neighbour's completes
/// to 1. The outermost `margin` pixels there, which lack what lies around them, count for nothing.
at::Tensor feather(std::span<const RowRange> tiles, std::size_t index, std::int64_t margin);

/// The last levels tile by tile, blended where tiles overlap: less memory, about the same image. The levels before,
/// with their attention over all of the image, are decoded in bands. Group normalisation's statistics in the last
/// levels are estimated: from the same picture decoded no larger than a tile; all tiles use them, so that none differs
/// from its neighbours. An image that is no larger than a tile is decoded in bands. The result has the same bits on any
/// number of devices of one kind. z [1, latent channels, h, w] -> [1, 3, H, W] in fp32 on the first device.
at::Tensor decode_in_tiles(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z,
                           const Tiling& tiling, const std::optional<BandRules>& rules = {});

}  // namespace mgpu
