#pragma once

#include <cstdint>
#include <vector>

#include "core/bands.h"

namespace mgpu {

/// How the levels of an autoencoder's largest images are coded slab by slab: some units of rows go through them by
/// themselves, with as many more around them as the levels' convolutions reach.
struct Slabs {
  int levels = 2;
  /// They go through all these levels at once; else through one after another, with all of the image between them:
  /// faster, in more memory.
  bool together = false;

  static constexpr std::int64_t kUnits = 2;  ///< of a slab, at most

  /// Units that `reach` rows take on either side of a slab.
  static std::int64_t margin(std::int64_t reach, std::int64_t rows_of_unit) { return ceil_div(reach, rows_of_unit); }
  /// The slabs of some units.
  static std::vector<RowRange> cut(const RowRange& units);
};

/// How far, in rows of their largest image, what lies around a slab of so many levels reaches into it, where each has
/// so many residual blocks: edge_reach(), and an encoder's stem and reductions reach no further.
std::int64_t slab_reach(int levels, int residual_blocks);

}  // namespace mgpu
