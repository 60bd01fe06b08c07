#pragma once

#include <vector>

#include "shard/allocation.h"
#include "shard/chain.h"
#include "shard/plan.h"

namespace mgpu {

/// What an allocation gives of a component.
struct Allotment {
  std::vector<ChainRange> runs;                    ///< of each device
  std::vector<std::vector<DonorShare>> offloaded;  ///< likewise: what others keep of its run
};

/// Percentages and "*" are cut at the nearest unit, capacities (bytes, fractions) are filled and not passed. What falls
/// to a donor is computed by the nearest device before it in the string, else by the first; under a tail by the tail's.
/// Throws AllocationError for a device that is in neither list, an amount into which no unit fits, and capacities that
/// do not hold the component.
Allotment allot(const AllocationString& allocation, const ComponentNeed& need, const Chain& chain,
                const std::vector<DeviceRoom>& devices, const std::vector<DeviceRoom>& donors);

}  // namespace mgpu
