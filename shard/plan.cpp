#include "shard/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <tuple>

#include "core/error.h"
#include "core/strings.h"
#include "shard/chain.h"
#include "shard/placement.h"

namespace mgpu {
namespace {

/// Index of the best device to hold everything alone, and how many bytes it lacks.
struct Sole {
  std::size_t device = 0;
  std::uint64_t lacking = 0;
};

Plan plan_of(const Placement& placement, const std::vector<DeviceRoom>& devices) {
  Plan plan;
  for (std::size_t d = 0; d < devices.size(); ++d) {
    PlannedDevice& planned = plan.devices.emplace_back();
    planned.room = devices[d];
    planned.peak = placement.peak(d, devices[d]);
    for (const PlacedComponent& placed : placement.components) {
      std::ranges::move(placed.chain.assignments(placed.runs[d]), std::back_inserter(planned.assignments));
      if (placed.need->phase == Phase::Sample) planned.time += placed.chain.time(placed.runs[d]) / devices[d].speed;
    }
    for (const Phase phase : kPhases) {
      const std::uint64_t peak = planned.peak[phase], limit = planned.room.limit_bytes;
      if (peak > limit) plan.shortfalls.push_back({planned.room.id, phase, peak - limit});
    }
  }
  return plan;
}

/// One sentence for each device, of the phase that it lacks most in.
std::string describe(const std::vector<Shortfall>& shortfalls, const std::vector<PlannedDevice>& devices) {
  std::vector<std::string> sentences;
  for (const PlannedDevice& device : devices) {
    const Phase worst = *std::ranges::max_element(kPhases, {}, [&](Phase phase) { return device.peak[phase]; });
    const auto own = std::ranges::find(shortfalls, device.room.id, &Shortfall::device);
    if (own == shortfalls.end()) continue;
    const std::uint64_t need = device.peak[worst], limit = device.room.limit_bytes;
    sentences.push_back(fmt::format("{} needs {} to {} and may use {}: {} short", device.room.id.to_string(),
                                    bytes_text(need), name_of(worst), bytes_text(limit), bytes_text(need - limit)));
  }
  return fmt::format("{}", fmt::join(sentences, "; "));
}

Sole best_sole(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices) {
  const auto rank = [&](std::size_t d) {
    return std::tuple(plan_of(place_on(components, devices, d), devices).lacking_bytes(), -devices[d].speed,
                      -room_for_weights(devices[d]));
  };
  std::size_t best = 0;
  for (std::size_t d = 1; d < devices.size(); ++d)
    if (rank(d) < rank(best)) best = d;
  return {best, std::get<0>(rank(best))};
}

/// "; cuda:1, cuda:2 idle"
std::string idle_devices(const Plan& plan) {
  std::vector<std::string> idle;
  for (const PlannedDevice& device : plan.devices)
    if (device.assignments.empty()) idle.push_back(device.room.id.to_string());
  return idle.empty() ? std::string{} : fmt::format("; {} idle", fmt::join(idle, ", "));
}

/// The one device that `mode: single` uses: the allocation's, or the best.
std::size_t device_of_single(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
                             const PlacementRequest& request) {
  std::optional<std::size_t> named;
  for (const ComponentNeed& component : components) {
    const auto allocation = request.allocation.find(component.name);
    if (allocation == request.allocation.end()) continue;
    const PlacedComponent placed = place_as_told(component, allocation->second, devices);
    for (std::size_t d = 0; d < devices.size(); ++d) {
      if (placed.runs[d].empty()) continue;
      if (named && *named != d)
        throw PlacementError(component.name,
                             {0, "\"mode: single\" keeps everything on one device, and the allocation spreads it",
                              "leave mode or the allocation out"});
      named = d;
    }
  }
  return named ? *named : best_sole(components, devices).device;
}

/// Whether the job needs or wants several devices, and why.
struct Choice {
  bool spread = false;
  std::size_t device = 0;  ///< where everything lies else
  std::string reason;
};

Choice choose(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
              const PlacementRequest& request) {
  using Mode = PlacementRequest::Mode;
  if (devices.size() == 1) return {!request.allocation.empty(), 0, "one device"};
  if (request.mode == Mode::Single)
    return {false, device_of_single(components, devices, request), "the job asks for one device"};
  if (request.mode == Mode::Shard) return {true, 0, "the job asks for it"};
  if (!request.allocation.empty()) return {true, 0, "as the allocation says"};
  const Sole sole = best_sole(components, devices);
  if (sole.lacking > 0) return {true, 0, "no device alone holds it"};
  if (request.evaluations > 1)
    return {true, 0,
            fmt::format("{} evaluations that do not wait for each other keep {} devices busy", request.evaluations,
                        devices.size())};
  return {false, sole.device,
          fmt::format("{} holds everything, and one picture at a time would be no faster on several devices",
                      devices[sole.device].id.to_string())};
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

std::uint64_t BlockNeed::bytes_of(int block) const {
  if (!each.empty()) return each[static_cast<std::size_t>(block)];
  const auto i = static_cast<std::uint64_t>(block), all = static_cast<std::uint64_t>(count);
  return bytes * (i + 1) / all - bytes * i / all;
}

std::uint64_t Plan::lacking_bytes() const {
  std::uint64_t most = 0;
  for (const Shortfall& lack : shortfalls) most = std::max(most, lack.bytes);
  return most;
}

std::size_t Plan::device_of(std::string_view component, std::string_view kind, int block) const {
  for (std::size_t d = 0; d < devices.size(); ++d)
    for (const Assignment& a : devices[d].assignments)
      if (a.component == component && a.kind == kind && a.first <= block && block <= a.last) return d;
  MGPU_CHECK(false, "the plan has no {} {} of the {}", kind, block, component);
  return 0;
}

Plan make_plan(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
               const PlacementRequest& request) {
  MGPU_CHECK(!devices.empty(), "a plan needs a device");
  const Choice choice = choose(components, devices, request);
  Plan plan = plan_of(
      choice.spread ? place_over(components, devices, request) : place_on(components, devices, choice.device), devices);
  const auto used = std::ranges::count_if(plan.devices, [](const auto& d) { return !d.assignments.empty(); });
  plan.mode = used > 1 ? "shard" : "single";
  plan.mode_reason = choice.reason + idle_devices(plan);
  plan.shortfall = describe(plan.shortfalls, plan.devices);
  return plan;
}

}  // namespace mgpu
