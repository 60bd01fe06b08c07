#include "cli/job/named_devices.h"

#include <algorithm>
#include <iterator>

namespace mgpu {

std::vector<DeviceId> donors_named(const ComponentAllocation& wanted, const std::vector<DeviceId>& computing) {
  std::vector<DeviceId> out = wanted.donors;
  if (!wanted.expert) return out;
  const AllocationString& expert = wanted.expert->value;
  const bool tail = expert.tail || !wanted.compute.empty();
  for (const AllocationEntry& entry : expert.entries)
    if (tail || std::ranges::find(computing, entry.device) == computing.end()) out.push_back(entry.device);
  if (expert.tail) std::ranges::copy(expert.tail->donors, std::back_inserter(out));
  return out;
}

bool may_use(const Job& job, const DeviceId& id) {
  const auto& ids = job.placement.gpu_ids;
  if (!ids.given || id == DeviceId::cpu() || std::ranges::find(*ids, id) != ids->end()) return true;
  return std::ranges::any_of(job.placement.allocation.all(), [&](const auto& component) {
    const std::vector<DeviceId> donors = donors_named(**component.second, *ids);
    return std::ranges::find(donors, id) != donors.end();
  });
}

}  // namespace mgpu
