#pragma once

#include <vector>

#include "shard/allocation.h"
#include "shard/chain.h"
#include "shard/plan.h"

namespace mgpu {

/// The run of each device that an allocation gives of a component. Percentages and "*" are cut at the nearest unit,
/// capacities (bytes, fractions) are filled and not passed. Throws AllocationError for a device that is not among
/// `devices` or only lends memory, an amount into which no unit fits, and capacities that do not hold the component.
std::vector<Run> allocated_runs(const AllocationString& allocation, const ComponentNeed& need, const Chain& chain,
                                const std::vector<DeviceRoom>& devices);

}  // namespace mgpu
