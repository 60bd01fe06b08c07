#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <vector>

#include "shard/chain.h"

namespace mgpu {

/// What a run on a device costs.
using RunCost = std::function<double(std::size_t device, Run run)>;

/// A chain cut into one run a device, in the devices' order; runs may be empty.
struct Split {
  std::vector<Run> runs;
  std::vector<double> worst;   ///< the largest of each cost in turn
  std::array<double, 2> sums;  ///< of the last two costs over the devices
};

/// The split of so many units whose largest cost is least: by the first of `worst`; among such by the next, and so on;
/// among those by the sums of `sums`, the first first. Dynamic programming over devices and ends of runs: exact, and
/// the same for the same costs.
Split best_split(int units, std::size_t devices, const std::vector<RunCost>& worst, const std::array<RunCost, 2>& sums);

}  // namespace mgpu
