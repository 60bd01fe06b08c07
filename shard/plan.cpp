#include "shard/plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace mgpu {
namespace {

/// The sentence for a device whose phase needs more than it may take.
std::string describe_shortfall(const PlannedDevice& device, Phase phase, std::uint64_t need) {
  const std::uint64_t limit = device.room.limit_bytes;
  return fmt::format("{} needs {} to {} and may use {}: {} short", device.room.id.to_string(), format_bytes(need), name_of(phase),
                     format_bytes(limit), format_bytes(need - limit));
}

}  // namespace

std::string_view name_of(Phase phase) {
  constexpr std::array<std::string_view, kPhases> kNames = {"encode", "sample", "decode"};
  return kNames[static_cast<std::size_t>(phase)];
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr double kStep = 1024.0;
  constexpr std::array<const char*, 4> kUnits = {"B", "KiB", "MiB", "GiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= kStep && unit + 1 < kUnits.size()) value /= kStep, ++unit;
  return unit < 3 ? fmt::format("{:.0f} {}", value, kUnits[unit]) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

Plan plan_single(const std::vector<ComponentNeed>& components, const DeviceRoom& device) {
  PlannedDevice planned{device, {}, {}};
  planned.peak.fill(device.driver_bytes);
  for (const ComponentNeed& component : components) {
    for (const BlockNeed& block : component.blocks) {
      planned.assignments.push_back({component.name, block.kind, 0, block.count - 1, block.bytes});
    }
  }
  for (std::size_t p = 0; p < kPhases; ++p) {
    std::uint64_t activation = 0;  // the components of a phase run one after another
    for (const ComponentNeed& component : components) {
      if (component.phase != static_cast<Phase>(p)) continue;
      planned.peak[p] += component.bytes;
      activation = std::max(activation, component.activation);
    }
    planned.peak[p] += activation;
  }

  Plan plan{"single", "one device", {}, {}};
  for (std::size_t p = 0; p < kPhases && plan.fits(); ++p) {
    if (planned.peak[p] > device.limit_bytes) plan.shortfall = describe_shortfall(planned, static_cast<Phase>(p), planned.peak[p]);
  }
  plan.devices.push_back(std::move(planned));
  return plan;
}

}  // namespace mgpu
