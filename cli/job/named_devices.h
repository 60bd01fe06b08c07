#pragma once

#include <vector>

#include "cli/job/job.h"

namespace mgpu {

/// Devices that an allocation makes lend: under a tail all but its own, else those that do not compute.
std::vector<DeviceId> donors_named(const ComponentAllocation& wanted, const std::vector<DeviceId>& computing);

/// Whether the job has a use for a device: it may compute, or lend memory, as `cpu` always may. True of any device
/// where the job does not name those that compute.
bool may_use(const Job& job, const DeviceId& id);

}  // namespace mgpu
