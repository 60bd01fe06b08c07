#pragma once

#include <cstdint>
#include <vector>

#include "core/bands.h"

namespace mgpu {

/// How an image is decoded tile by tile.
struct Tiling {
  std::int64_t tile = 1024;    ///< pixels a side, at most
  std::int64_t overlap = 128;  ///< pixels at most that neighbours share; a third of a tile at most
  int levels = 2;              ///< the decoder's last, that go tile by tile; what lies before is decoded whole
};

/// How far, in pixels, a tile's edge reaches into what is computed behind it, where a level has so many residual
/// blocks: a pixel a convolution, twice as many after every enlargement.
std::int64_t edge_reach(int levels, int residual_blocks);

/// Pixels that neighbours share: what their edges reach, and a ramp between; no more than the overlap.
std::int64_t shared_pixels(const Tiling& tiling, int residual_blocks);

/// A side cut into as few tiles as will do, all as large and no larger than needed, evenly spread. Neighbours
/// share at least `overlap`.
std::vector<RowRange> cut_into_tiles(std::int64_t side, std::int64_t tile, std::int64_t overlap);

}  // namespace mgpu
