#pragma once

#include <cstdint>
#include <vector>

#include "core/bands.h"

namespace mgpu {

/// How an image is decoded tile by tile.
struct Tiling {
  std::int64_t tile = 1024;    ///< pixels a side, at most
  std::int64_t overlap = 128;  ///< pixels at least that neighbours share; a third of a tile at most
  int levels = 2;              ///< the decoder's last, that go tile by tile; what lies before is decoded whole
};

/// Pixels of the sample that a tiled decode takes its statistics from, in tiles.
inline constexpr double kSampleTiles = 1.5;

/// A side cut into as few tiles as will do, all as large and no larger than needed, evenly spread.
std::vector<RowRange> cut_into_tiles(std::int64_t side, std::int64_t tile, std::int64_t overlap);

}  // namespace mgpu
