#include "core/slab_layout.h"

#include <algorithm>

#include "core/tiling.h"

namespace mgpu {

std::vector<RowRange> Slabs::cut(const RowRange& units) {
  std::vector<RowRange> out;
  for (std::int64_t first = units.first; first < units.last; first += kUnits)
    out.push_back({first, std::min(first + kUnits, units.last)});
  return out;
}

std::int64_t slab_reach(int levels, int residual_blocks) {
  // An enlargement's convolution reaches two rows of the larger image, edge_reach() counts one.
  return edge_reach(levels, residual_blocks) + (std::int64_t{1} << levels);
}

}  // namespace mgpu
