#include "shard/plan.h"

#include "core/error.h"

namespace mgpu {
namespace {

/// A device's assignment with that block, or null.
const Assignment* find(const PlannedDevice& device, std::string_view component, std::string_view kind, int block) {
  for (const Assignment& a : device.assignments)
    if (a.component == component && a.kind == kind && a.first <= block && block <= a.last) return &a;
  return nullptr;
}

}  // namespace

Plan Plan::of_devices_in_use() const {
  Plan out = *this;
  std::erase_if(out.devices, [](const PlannedDevice& device) { return !device.in_use(); });
  return out;
}

std::uint64_t Plan::lacking_bytes() const {
  std::uint64_t most = 0;
  for (const Shortfall& lack : shortfalls) most = std::max(most, lack.bytes);
  return most;
}

std::map<std::string, std::uint64_t> Plan::streamed_bytes(std::string_view component) const {
  std::map<std::string, std::uint64_t> out;
  for (const PlannedDevice& device : devices)
    for (const Assignment& a : device.assignments)
      if (a.streamed && a.component == component) out[a.from] += a.bytes;
  return out;
}

std::vector<std::size_t> Plan::devices_of(std::string_view component) const {
  std::vector<std::size_t> out;
  for (std::size_t d = 0; d < devices.size(); ++d)
    if (std::ranges::find(devices[d].assignments, component, &Assignment::component) != devices[d].assignments.end())
      out.push_back(d);
  return out;
}

std::size_t Plan::device_of(std::string_view component, std::string_view kind, int block) const {
  for (std::size_t d = 0; d < devices.size(); ++d)
    if (find(devices[d], component, kind, block)) return d;
  MGPU_CHECK(false, "the plan has no {} {} of the {}", kind, block, component);
}

const Assignment& Plan::assignment_of(std::string_view component, std::string_view kind, int block) const {
  return *find(devices[device_of(component, kind, block)], component, kind, block);
}

}  // namespace mgpu
