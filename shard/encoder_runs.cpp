#include "shard/encoder_runs.h"

namespace mgpu {

std::vector<EncoderRun> encoder_runs(const Plan& plan, std::string_view component, int count) {
  std::vector<EncoderRun> out;
  for (int first = 0, last = 0; first < count; first = last) {
    const std::size_t device = plan.device_of(component, "layer", first);
    const auto layers = static_cast<std::size_t>(count);
    std::vector<bool> held(layers, false), streamed(layers, false);
    std::map<int, DeviceId> donors;
    for (; last < count && plan.device_of(component, "layer", last) == device; ++last) {
      const Assignment& assignment = plan.assignment_of(component, "layer", last);
      held[static_cast<std::size_t>(last)] = true;
      streamed[static_cast<std::size_t>(last)] = assignment.streamed;
      if (assignment.streamed) donors.emplace(last, parse_device(assignment.from).value());
    }
    out.push_back({device, HeldBlocks(std::move(held), std::move(streamed)), std::move(donors)});
  }
  return out;
}

}  // namespace mgpu
