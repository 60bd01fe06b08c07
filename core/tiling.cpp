#include "core/tiling.h"

#include "core/error.h"

namespace mgpu {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

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
