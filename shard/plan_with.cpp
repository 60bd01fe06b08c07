#include "shard/plan_with.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <tuple>

#include "shard/chain.h"
#include "shard/placement.h"
#include "shard/plan_text.h"

namespace mgpu {
namespace {

/// Index of the best device to hold everything alone, and how many bytes it lacks.
struct Sole {
  std::size_t device = 0;
  std::uint64_t lacking = 0;
};

void note_shortfalls(Plan& plan, const DeviceRoom& room, const PhaseBytes& peak) {
  for (const Phase phase : kPhases)
    if (peak[phase] > room.limit_bytes) plan.shortfalls.push_back({room.id, phase, peak[phase] - room.limit_bytes});
}

Plan plan_of(const Placement& placement, const Site& site) {
  const std::vector<DeviceRoom>& devices = site.devices;
  Plan plan;
  plan.keeps_ahead = site.keeps_ahead;
  for (const PlacedComponent& placed : placement.components) {
    if (!placed.coding) continue;
    (placed.need->phase == Phase::Decode ? plan.coding : plan.image_encoding) = *placed.coding;
    const std::vector<CodingNeed>& ways = placed.need->coding;
    if (placed.need->phase == Phase::Decode)
      plan.thriftier.assign(ways.begin() + (placed.coding - ways.data()) + 1, ways.end());
  }
  std::erase_if(plan.thriftier, [](const CodingNeed& way) { return way.way == CodingWay::Parallel; });
  for (std::size_t d = 0; d < devices.size(); ++d) {
    PlannedDevice& planned = plan.devices.emplace_back();
    planned.room = devices[d];
    planned.peak = placement.peak(d, devices[d]);
    for (const PlacedComponent& placed : placement.components) {
      std::ranges::move(placed.chain.assignments(placed.runs[d], placed.loans[d]),
                        std::back_inserter(planned.assignments));
      if (placed.need->phase != Phase::Sample) continue;
      planned.time += placed.chain.time(placed.runs[d]) / devices[d].speed;
      plan.pass_time = std::max(plan.pass_time, pass_time(placement, placed, d, site));
    }
    note_shortfalls(plan, planned.room, planned.peak);
  }
  for (const DeviceRoom& donor : site.donors) {
    const PhaseBytes lent = placement.lent(donor.id);
    const bool computes = std::ranges::find(devices, donor.id, &DeviceRoom::id) != devices.end();
    if (computes || lent.encode + lent.sample == 0) continue;
    plan.donors.push_back({donor, lent});
    note_shortfalls(plan, donor, lent);
  }
  return plan;
}

Sole best_sole(const std::vector<ComponentNeed>& components, const Site& site) {
  const auto rank = [&](std::size_t d) {
    return std::tuple(plan_of(place_on(components, site, d), site).lacking_bytes(), -site.devices[d].speed,
                      -room_for_weights(site.devices[d]));
  };
  std::size_t best = 0;
  for (std::size_t d = 1; d < site.devices.size(); ++d)
    if (rank(d) < rank(best)) best = d;
  return {best, std::get<0>(rank(best))};
}

/// The one device that `mode: single` uses: the allocation's, or the best.
std::size_t device_of_single(const std::vector<ComponentNeed>& components, const Site& site,
                             const PlacementRequest& request) {
  std::optional<std::size_t> named;
  for (const ComponentNeed& component : components) {
    const auto allocation = request.allocation.find(component.name);
    if (allocation == request.allocation.end()) continue;
    const PlacedComponent placed = place_as_told(component, allocation->second, site);
    for (std::size_t d = 0; d < site.devices.size(); ++d) {
      if (placed.runs[d].empty()) continue;
      if (named && *named != d)
        throw PlacementError(component.name,
                             {0, "\"mode: single\" keeps everything on one device, and the allocation spreads it",
                              "leave mode or the allocation out"});
      named = d;
    }
  }
  return named ? *named : best_sole(components, site).device;
}

/// Whether the job needs or wants several devices, and why.
struct Choice {
  bool spread = false;
  std::size_t device = 0;  ///< where everything lies else
  std::string reason;
};

Choice choose(const std::vector<ComponentNeed>& components, const Site& site, const PlacementRequest& request) {
  using Mode = PlacementRequest::Mode;
  const std::vector<DeviceRoom>& devices = site.devices;
  if (devices.size() == 1) return {!request.allocation.empty(), 0, "one device"};
  if (request.mode == Mode::Single)
    return {false, device_of_single(components, site, request), "the job asks for one device"};
  if (request.mode == Mode::Shard) return {true, 0, "the job asks for it"};
  if (request.coding == CodingWay::Parallel && site.coders.size() > 1)
    return {true, 0, "the job asks for several devices to code pictures"};
  if (!request.allocation.empty()) return {true, 0, "as the allocation says"};
  Site keeping = site;
  keeping.streams = false;
  const Sole sole = best_sole(components, keeping);
  if (sole.lacking > 0) return {true, 0, "no device alone holds it"};
  if (request.evaluations > 1)
    return {true, 0,
            fmt::format("{} evaluations that do not wait for each other keep {} devices busy", request.evaluations,
                        devices.size())};
  return {false, sole.device,
          fmt::format("{} holds everything, and one picture at a time would be no faster on several devices",
                      devices[sole.device].id.to_string())};
}

Site site_for(const std::vector<DeviceRoom>& devices, const PlacementRequest& request, const Means& means) {
  return {.devices = devices,
          .donors = request.donors,
          .keeps_ahead = means.keeps_ahead,
          .streams = means.streams,
          .in_flight = means.passes == 1 ? one_by_one(request) : in_flight(request, means.passes),
          .way = means.way,
          .coders = coders_of(devices, request)};
}

}  // namespace

std::vector<std::size_t> coders_of(const std::vector<DeviceRoom>& devices, const PlacementRequest& request) {
  if (request.coding == CodingWay::Whole) return {};
  const DeviceRoom& fastest = *std::ranges::max_element(devices, {}, &DeviceRoom::speed);
  std::vector<std::size_t> out;
  for (std::size_t d = 0; d < devices.size(); ++d) {
    const bool is_told = std::ranges::find(request.coders, devices[d].id) != request.coders.end();
    const bool is_alike = devices[d].id.kind == fastest.id.kind && devices[d].name == fastest.name;
    if (request.coders.empty() ? is_alike : is_told) out.push_back(d);
  }
  return out;
}

bool streams(const Plan& plan) {
  return !plan.streamed_bytes("unet").empty();
}

Plan plan_with(const Means& means, const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
               const PlacementRequest& request, std::int64_t wanted) {
  const Site site = site_for(devices, request, means);
  const Choice choice = choose(components, site, request);
  Plan plan = plan_of(
      choice.spread ? place_over(components, site, request.allocation) : place_on(components, site, choice.device),
      site);
  const auto used = std::ranges::count_if(plan.devices, &PlannedDevice::in_use);
  plan.passes_at_once = used > 1 || streams(plan) ? means.passes : 1;
  plan.mode = used > 1 ? "shard" : "single";
  plan.mode_reason = choice.reason + means_text(plan, components);
  plan.shortfall = shortfall_text(plan);
  if (used > 1 && plan.fits() && means.passes < wanted)
    plan.mode_reason += fmt::format("; no more than {} passes at once, for want of memory", means.passes);
  return plan;
}

}  // namespace mgpu
