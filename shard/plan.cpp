#include "shard/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/strings.h"

namespace mgpu {
namespace {

/// Whether a component lies on the device during `phase`. Encoders take turns and leave; the diffusion model and the
/// autoencoder are loaded together and stay, since the next picture's sampling follows a decode.
bool is_resident(const ComponentNeed& component, Phase phase) {
  return phase != Phase::Encode && component.phase != Phase::Encode;
}

std::uint64_t peak_of(const std::vector<ComponentNeed>& components, Phase phase) {
  std::uint64_t resident = 0, turn = 0;
  for (const ComponentNeed& component : components) {
    const bool stays = is_resident(component, phase);
    if (stays) resident += component.bytes;
    if (component.phase == phase) turn = std::max(turn, component.activation + (stays ? 0 : component.bytes));
  }
  return resident + turn;
}

/// The sentence for the phase that lacks most; empty when all fit.
std::string describe_shortfall(const PlannedDevice& device) {
  const Phase worst = *std::ranges::max_element(kPhases, {}, [&](Phase phase) { return device.peak[phase]; });
  const std::uint64_t need = device.peak[worst], limit = device.room.limit_bytes;
  if (need <= limit) return {};
  return fmt::format("{} needs {} to {} and may use {}: {} short", device.room.id.to_string(), bytes_text(need),
                     name_of(worst), bytes_text(limit), bytes_text(need - limit));
}

}  // namespace

std::string_view name_of(Phase phase) {
  switch (phase) {
    case Phase::Encode:
      return "encode";
    case Phase::Sample:
      return "sample";
    case Phase::Decode:
      return "decode";
  }
  return "";
}

Plan plan_single(const std::vector<ComponentNeed>& components, const DeviceRoom& device) {
  PlannedDevice planned{device, {}, {}};
  for (const ComponentNeed& component : components) {
    for (const BlockNeed& block : component.blocks) {
      planned.assignments.push_back(
          {component.name, block.kind, 0, block.count - 1, block.count, block.bytes, false, {}});
    }
  }
  for (const Phase phase : kPhases) planned.peak[phase] = device.driver_bytes + peak_of(components, phase);
  std::string shortfall = describe_shortfall(planned);
  return {"single", "one device", {std::move(planned)}, std::move(shortfall)};
}

}  // namespace mgpu
