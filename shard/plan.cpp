#include "shard/plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace mgpu {
namespace {

/// The sentence for a device whose phase needs more than it may take.
std::string describe_shortfall(const PlannedDevice& device, Phase phase, std::uint64_t need) {
  const std::uint64_t limit = device.room.limit_bytes;
  return fmt::format("{} needs {} to {} and may use {}: {} short", device.room.id.to_string(), format_bytes(need),
                     name_of(phase), format_bytes(limit), format_bytes(need - limit));
}

/// What stays on the device while pictures are decoded.
std::uint64_t resident_bytes(const std::vector<ComponentNeed>& components) {
  std::uint64_t bytes = 0;
  for (const ComponentNeed& component : components) {
    if (component.phase == Phase::Sample) bytes += component.bytes;
  }
  return bytes;
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
  for (const ComponentNeed& component : components) {
    for (const BlockNeed& block : component.blocks) {
      planned.assignments.push_back(
          {component.name, block.kind, 0, block.count - 1, block.count, block.bytes, false, {}});
    }
  }
  for (const Phase phase : kPhases) {
    std::uint64_t weights = 0, activation = 0;
    for (const ComponentNeed& component : components) {
      if (component.phase != phase) continue;
      // The components of a phase take turns, the diffusion model stays for the next picture's decode.
      weights = std::max(weights, component.bytes);
      activation = std::max(activation, component.activation);
    }
    planned.peak[phase] = device.driver_bytes + weights + activation;
  }
  planned.peak.decode += resident_bytes(components);

  Plan plan{"single", "one device", {}, {}};
  for (const Phase phase : kPhases) {
    if (planned.peak[phase] > device.limit_bytes && plan.fits()) {
      plan.shortfall = describe_shortfall(planned, phase, planned.peak[phase]);
    }
  }
  plan.devices.push_back(std::move(planned));
  return plan;
}

}  // namespace mgpu
