#include "shard/planned_runs.h"

#include <algorithm>

#include "core/error.h"

namespace mgpu {

std::vector<PlannedRun> planned_runs(const Plan& plan, std::string_view component, int count) {
  constexpr std::size_t kNobody = static_cast<std::size_t>(-1);
  const auto blocks = static_cast<std::size_t>(count);
  std::vector<std::size_t> owners(blocks, kNobody);
  std::vector<bool> streamed(blocks, false);
  for (std::size_t device = 0; device < plan.devices.size(); ++device) {
    for (const Assignment& assignment : plan.devices[device].assignments) {
      if (assignment.component != component) continue;
      for (int i = assignment.first; i <= assignment.last; ++i) {
        owners.at(static_cast<std::size_t>(i)) = device;
        streamed.at(static_cast<std::size_t>(i)) = assignment.streamed;
      }
    }
  }
  MGPU_CHECK(std::ranges::find(owners, kNobody) == owners.end(), "the plan leaves a block of {} out", component);

  std::vector<PlannedRun> out;
  for (std::size_t first = 0, last = 0; first < blocks; first = last) {
    while (last < blocks && owners[last] == owners[first]) ++last;
    std::vector<bool> held(blocks, false);
    std::fill(held.begin() + static_cast<std::ptrdiff_t>(first), held.begin() + static_cast<std::ptrdiff_t>(last),
              true);
    out.push_back({owners[first], HeldBlocks(std::move(held), streamed)});
  }
  return out;
}

}  // namespace mgpu
