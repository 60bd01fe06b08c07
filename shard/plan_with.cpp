#include "shard/plan_with.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <numeric>
#include <tuple>

#include "shard/chain.h"
#include "shard/job_time.h"
#include "shard/plan_text.h"

namespace mgpu {
namespace {

PlacementContext site_for(const MemoryOptions& options, const PlanInputs& inputs) {
  const PlacementRequest& request = inputs.request;
  return {.devices = inputs.devices,
          .donors = request.donors,
          .offloads = inputs.offloads,
          .keeps_precomputed = options.keeps_precomputed,
          .streams = options.streams,
          .in_flight = options.passes == 1 ? one_by_one(request) : in_flight(request, options.passes),
          .decode_mode = options.decode_mode,
          .vae_devices = options.vae_devices,
          .cut = options.cut,
          .most_devices = options.most_devices};
}

Placement placement_with(const MemoryOptions& options, const PlanInputs& inputs) {
  const PlacementContext context = site_for(options, inputs);
  return options.alone ? place_on(inputs.components, context, *options.alone)
                       : place_over(inputs.components, context, inputs.request.allocation);
}

void note_shortfalls(Plan& plan, const DeviceRoom& room, const PhaseBytes& peak) {
  for (const Phase phase : kPhases)
    if (peak[phase] > room.limit_bytes) plan.shortfalls.push_back({room.id, phase, peak[phase] - room.limit_bytes});
}

Plan plan_of(const Placement& placement, const PlacementContext& context) {
  const std::vector<DeviceRoom>& devices = context.devices;
  Plan plan;
  plan.keeps_precomputed = context.keeps_precomputed;
  for (const PlacedComponent& placed : placement.components) {
    if (!placed.mode) continue;
    (placed.need->phase == Phase::Decode ? plan.decode : plan.image_encoding) = *placed.mode;
    const std::vector<DecodeNeed>& modes = placed.need->modes;
    if (placed.need->phase == Phase::Decode)
      plan.thriftier.assign(modes.begin() + (placed.mode - modes.data()) + 1, modes.end());
  }
  std::erase_if(plan.thriftier, [](const DecodeNeed& one) { return one.mode == DecodeMode::Parallel; });
  for (std::size_t d = 0; d < devices.size(); ++d) {
    PlannedDevice& planned = plan.devices.emplace_back();
    planned.room = devices[d];
    planned.peak = placement.peak(d, devices[d]);
    for (const PlacedComponent& placed : placement.components) {
      std::ranges::move(placed.chain.assignments(placed.runs[d], placed.offloads[d]),
                        std::back_inserter(planned.assignments));
      if (placed.need->phase == Phase::Sample) planned.time += placed.chain.time(placed.runs[d]) / devices[d].speed;
    }
    note_shortfalls(plan, planned.room, planned.peak);
  }
  plan.pass_time = job_time(placement, context);
  for (const DeviceRoom& donor : context.donors) {
    const PhaseBytes offloaded = placement.offloaded(donor.id);
    const bool computes = std::ranges::find(devices, donor.id, &DeviceRoom::id) != devices.end();
    if (computes || offloaded.encode + offloaded.sample == 0) continue;
    plan.donors.push_back({donor, offloaded});
    note_shortfalls(plan, donor, peak_of(plan.donors.back()));
  }
  return plan;
}

std::size_t devices_in_use(const Plan& plan) {
  return static_cast<std::size_t>(std::ranges::count_if(plan.devices, &PlannedDevice::in_use));
}

/// Why the job is on one device, or on several.
std::string choice_text(const Plan& plan, const MemoryOptions& options, const PlanInputs& inputs) {
  using Mode = PlacementRequest::Mode;
  const PlacementRequest& request = inputs.request;
  if (inputs.devices.size() == 1) return "one device";
  if (request.mode == Mode::Single) return "the job asks for one device";
  if (request.mode == Mode::Shard) return "the job asks for it";
  if (request.decode_mode == DecodeMode::Parallel && options.vae_devices.size() > 1)
    return "the job asks for several devices to code pictures";
  if (!request.allocation.empty()) return "as the allocation says";
  MemoryOptions keeping = options;
  keeping.streams = false;
  const bool none_holds_it = best_single_device(keeping, inputs).lacking > 0;
  const std::vector<std::size_t> used = plan.devices_of("unet");
  if (used.size() > 1) {
    if (none_holds_it) return "no device alone holds it";
    if (request.evaluations > 1)
      return fmt::format("{} evaluations that do not wait for each other keep {} devices busy", request.evaluations,
                         used.size());
    return "several devices are faster than the one that holds everything";
  }
  if (used.empty()) return "no device alone holds it";
  const std::string device = inputs.devices[used.front()].id.to_string();
  if (devices_in_use(plan) > 1 && none_holds_it) return fmt::format("{} takes all of the steps", device);
  if (request.evaluations == 1 && !none_holds_it && !streams(plan))
    return fmt::format("{} holds everything, and one picture at a time would be no faster on several devices", device);
  return fmt::format("{} alone takes the least time", device);
}

/// Whether a device that runs no block of the diffusion model could hold one, beside what lies on it.
bool has_room_for_block(const Placement& placement, std::size_t device, const PlacementContext& context) {
  for (const PlacedComponent& placed : placement.components) {
    if (placed.need->phase != Phase::Sample) continue;
    const DeviceRoom& room = context.devices[device];
    for (int unit = 0; unit < placed.chain.units(); ++unit) {
      Load load = placement.load(device, room.id);
      const ChainRange run{unit, unit + 1};
      load.add(*placed.need, placed.chain, run, placed.chain.held(run), 0, placement.in_flight, room.id);
      if (highest(load.peak(room, placement.offloaded(room.id))) <= room.limit_bytes) return true;
    }
  }
  return false;
}

/// "; cuda:3 idle; idle: cuda:1 at 0.25, cuda:2 at 0.5 of the speed would make it slower"
std::string idle_text(const Plan& plan, const MemoryOptions& options, const PlanInputs& inputs) {
  const std::vector<std::size_t> used = plan.devices_of("unet");
  const PlacementContext context = site_for(options, inputs);
  const Placement placement = placement_with(options, inputs);
  double fastest = 0.0;
  for (const std::size_t d : used) fastest = std::max(fastest, plan.devices[d].room.speed);
  const bool was_chosen =
      inputs.request.mode == PlacementRequest::Mode::Auto && !inputs.request.allocation.contains("unet");
  struct Reasons {
    std::vector<std::string> none, no_room, slower;
  };
  Reasons idle, without_block;
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    if (std::ranges::find(used, d) != used.end()) continue;
    const PlannedDevice& device = plan.devices[d];
    Reasons& reasons = device.in_use() ? without_block : idle;
    const std::string id = device.room.id.to_string();
    if (was_chosen && !has_room_for_block(placement, d, context))
      reasons.no_room.push_back(id);
    else if (was_chosen && device.room.speed < fastest)
      reasons.slower.push_back(fmt::format("{} at {:.3g}", id, device.room.speed / fastest));
    else
      reasons.none.push_back(id);
  }
  std::string out;
  if (!idle.none.empty()) out += fmt::format("; {} idle", fmt::join(idle.none, ", "));
  for (const auto& [reasons, what] :
       {std::pair(&idle, "idle"), std::pair(&without_block, "without a block of the unet")}) {
    if (!reasons->no_room.empty())
      out += fmt::format("; {}: {} with no room for a block of the unet", what, fmt::join(reasons->no_room, ", "));
    if (!reasons->slower.empty())
      out += fmt::format("; {}: {} of the speed would make it slower", what, fmt::join(reasons->slower, ", "));
  }
  return out;
}

}  // namespace

std::vector<std::vector<std::size_t>> vae_device_sets_of(const std::vector<DeviceRoom>& devices,
                                                         const PlacementRequest& request) {
  if (request.decode_mode == DecodeMode::Whole) return {};
  std::vector<std::vector<std::size_t>> out;
  const auto add = [&](const auto& may_code) {
    std::vector<std::size_t>& group = out.emplace_back();
    for (std::size_t d = 0; d < devices.size(); ++d)
      if (may_code(devices[d])) group.push_back(d);
  };
  if (!request.vae_devices.empty()) {
    add([&](const DeviceRoom& room) {
      return std::ranges::find(request.vae_devices, room.id) != request.vae_devices.end();
    });
    return out;
  }
  std::vector<std::size_t> by_speed(devices.size());
  std::iota(by_speed.begin(), by_speed.end(), std::size_t{0});
  std::ranges::stable_sort(by_speed, std::greater{}, [&](std::size_t d) { return devices[d].speed; });
  for (const std::size_t first : by_speed) {
    const DeviceRoom& like = devices[first];
    const bool is_in_group =
        std::ranges::any_of(out, [&](const auto& group) { return std::ranges::find(group, first) != group.end(); });
    if (is_in_group) continue;
    add([&](const DeviceRoom& room) {
      return room.id.kind == like.id.kind && room.name == like.name && room.speed == like.speed;
    });
  }
  std::erase_if(out, [](const auto& group) { return group.size() < 2; });
  return out;
}

bool streams(const Plan& plan) {
  return !plan.streamed_bytes("unet").empty();
}

SingleDevice best_single_device(const MemoryOptions& options, const PlanInputs& inputs) {
  const PlacementContext context = site_for(options, inputs);
  const auto rank = [&](std::size_t d) {
    return std::tuple(plan_of(place_on(inputs.components, context, d), context).lacking_bytes(),
                      -context.devices[d].speed, -room_for_weights(context.devices[d]));
  };
  std::size_t best = 0;
  for (std::size_t d = 1; d < context.devices.size(); ++d)
    if (rank(d) < rank(best)) best = d;
  return {best, std::get<0>(rank(best))};
}

std::size_t device_of_single(const MemoryOptions& options, const PlanInputs& inputs) {
  const PlacementContext context = site_for(options, inputs);
  std::optional<std::size_t> named;
  for (const ComponentNeed& component : inputs.components) {
    const auto allocation = inputs.request.allocation.find(component.name);
    if (allocation == inputs.request.allocation.end()) continue;
    const PlacedComponent placed = place_by_allocation(component, allocation->second, context);
    for (std::size_t d = 0; d < context.devices.size(); ++d) {
      if (placed.runs[d].empty()) continue;
      if (named && *named != d)
        throw PlacementError(component.name,
                             {0, "\"mode: single\" keeps everything on one device, and the allocation spreads it",
                              "leave mode or the allocation out"});
      named = d;
    }
  }
  return named ? *named : best_single_device(options, inputs).device;
}

Plan plan_with(const MemoryOptions& options, const PlanInputs& inputs) {
  Plan plan = plan_of(placement_with(options, inputs), site_for(options, inputs));
  const std::size_t used = devices_in_use(plan);
  plan.passes_at_once = used > 1 || streams(plan) ? options.passes : 1;
  plan.mode = used > 1 ? "shard" : "single";
  plan.shortfall = shortfall_text(plan);
  return plan;
}

std::string reason_of(const Plan& plan, const MemoryOptions& options, const PlanInputs& inputs, std::int64_t wanted) {
  std::string out =
      choice_text(plan, options, inputs) + idle_text(plan, options, inputs) + means_text(plan, inputs.components);
  if (devices_in_use(plan) > 1 && plan.fits() && options.passes < wanted)
    out += fmt::format("; no more than {} passes at once, for want of memory", options.passes);
  return out;
}

}  // namespace mgpu
