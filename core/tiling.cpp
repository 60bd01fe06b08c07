#include "core/tiling.h"

#include <algorithm>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr std::int64_t kRamp = 8;  // pixels over which one tile gives way to the next, which agrees with it there

}  // namespace

std::int64_t edge_reach(int levels, int residual_blocks) {
  std::int64_t out = 0;
  for (int level = 0; level < levels; ++level) out = 2 * out + 1 + 2 * residual_blocks;
  return out + 1;  // the last convolution
}

std::int64_t shared_pixels(const Tiling& tiling, int residual_blocks) {
  const std::int64_t scale = std::int64_t{1} << tiling.levels;
  const std::int64_t wanted = 2 * edge_reach(tiling.levels, residual_blocks) + kRamp;
  return std::min(tiling.overlap, ceil_div(wanted, scale) * scale);
}

std::vector<RowRange> cut_into_tiles(std::int64_t side, std::int64_t tile, std::int64_t overlap) {
  MGPU_CHECK(tile > 0 && 3 * overlap <= tile, "tiles of {} that share {}", tile, overlap);
  const std::int64_t count = side <= tile ? 1 : ceil_div(side - overlap, tile - overlap);
  const std::int64_t size = ceil_div(side + (count - 1) * overlap, count);  // the least with which so many suffice
  std::vector<RowRange> out{{0, size}};
  for (std::int64_t i = 1; i < count; ++i) {
    const std::int64_t first = i * (side - size) / (count - 1);
    out.push_back({first, first + size});
  }
  return out;
}

}  // namespace mgpu
