#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <optional>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "shard/chain.h"
#include "shard/placement.h"
#include "shard/plan.h"
#include "shard/plan_text.h"

namespace mgpu {
namespace {

// Reading Flux's modulation anew costs some hundredths of a run's time.
constexpr double kWorthReading = 0.95;
// What is streamed takes main memory, and a link may be slower than it is taken to be.
constexpr double kWorthStreaming = 0.85;

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

/// Passes at once, were all evaluations to go in so many waves: the last wave keeps devices as busy as the first.
std::int64_t in_waves(std::int64_t waves, std::int64_t evaluations) {
  return (evaluations + waves - 1) / waves;
}

/// Passes on their way at once.
struct Wanted {
  /// So many keep all devices at work: while each computes with one, another is on its way to it, or in a sampler's
  /// hands between two steps. A UNet goes through each device twice, on its way down and up. A device alone takes one
  /// after another.
  std::int64_t passes = 1;
  /// A streamed block serves all passes that wait for it: with more of them its copy takes less of each one's time.
  std::int64_t of_streams = 1;
};

Wanted wanted_passes(std::size_t devices, const PlacementRequest& request) {
  const auto computing = request.mode == PlacementRequest::Mode::Single ? 1 : static_cast<std::int64_t>(devices);
  const std::int64_t all = request.evaluations, least = 2 * computing;
  const std::int64_t most = std::max(4 * computing, request.passes_a_run);
  return {.passes = computing == 1 ? 1 : in_waves(std::max<std::int64_t>(all / least, 1), all),
          .of_streams = in_waves((all + most - 1) / most, all)};
}

/// Devices that may code pictures together: those that are told, else those of the fastest one's kind, which give the
/// same bits as it does.
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

/// Ways of coding pictures that may be taken, in order: those whose pictures are the same, then tiles.
struct Ways {
  std::vector<std::size_t> exact, tiled;
};

Ways ways_of(const std::vector<ComponentNeed>& components, const PlacementRequest& request) {
  const auto decoder = std::ranges::find(components, Phase::Decode, &ComponentNeed::phase);
  if (decoder == components.end() || decoder->coding.empty()) return {.exact = {0}, .tiled = {}};
  Ways out;
  for (std::size_t i = 0; i < decoder->coding.size(); ++i) {
    const CodingWay way = decoder->coding[i].way;
    // Who asks for a picture whole or by several devices gets the same slab by slab.
    const bool is_asked =
        request.coding.value_or(way) == way || (way == CodingWay::Slabs && request.coding != CodingWay::Tiled);
    if (is_asked) (way == CodingWay::Tiled ? out.tiled : out.exact).push_back(i);
  }
  if (out.exact.empty() && out.tiled.empty()) out.exact = {0};  // an autoencoder of one level has no tiles
  return out;
}

/// The means of saving memory that a plan uses.
struct Means {
  bool keeps_ahead = true;
  bool streams = false;
  std::int64_t passes = 1;
  std::size_t way = 0;
};

Site site_for(const std::vector<DeviceRoom>& devices, const PlacementRequest& request, const Means& means) {
  return {.devices = devices,
          .donors = request.donors,
          .keeps_ahead = means.keeps_ahead,
          .streams = means.streams,
          .in_flight = means.passes == 1 ? one_by_one(request) : in_flight(request, means.passes),
          .way = means.way,
          .coders = coders_of(devices, request)};
}

/// Whether blocks of the diffusion model are streamed.
bool streams(const Plan& plan) {
  return !plan.streamed_bytes("unet").empty();
}

/// With so many passes at once of those that are wanted.
Plan plan_with(const std::vector<ComponentNeed>& components, const Site& site, const PlacementRequest& request,
               std::int64_t passes, std::int64_t wanted) {
  const Choice choice = choose(components, site, request);
  Plan plan = plan_of(
      choice.spread ? place_over(components, site, request.allocation) : place_on(components, site, choice.device),
      site);
  const auto used = std::ranges::count_if(plan.devices, &PlannedDevice::in_use);
  plan.passes_at_once = used > 1 || streams(plan) ? passes : 1;
  plan.mode = used > 1 ? "shard" : "single";
  plan.mode_reason = choice.reason + means_text(plan, components);
  plan.shortfall = shortfall_text(plan);
  if (used > 1 && plan.fits() && passes < wanted)
    plan.mode_reason += fmt::format("; no more than {} passes at once, for want of memory", passes);
  return plan;
}

/// Whether an allocation says how many bytes a device gives at most.
bool names_bytes(const PlacementRequest& request) {
  using Kind = AllocationAmount::Kind;
  return std::ranges::any_of(request.allocation, [](const auto& component) {
    return std::ranges::any_of(component.second.entries, [](const AllocationEntry& entry) {
      return entry.amount.kind == Kind::Bytes || entry.amount.kind == Kind::Fraction;
    });
  });
}

/// Of plans that do not fit that is better which asks nothing of donors that they have not, then that which lacks less.
Plan less_lacking(Plan a, Plan b) {
  const auto rank = [](const Plan& plan) {
    const bool donors_lack = std::ranges::any_of(plan.donors, [&](const PlannedDonor& donor) {
      return std::ranges::find(plan.shortfalls, donor.room.id, &Shortfall::device) != plan.shortfalls.end();
    });
    return std::pair(donors_lack, plan.lacking_bytes());
  };
  return rank(b) < rank(a) ? std::move(b) : std::move(a);
}

/// With everything kept where it is computed, if that fits.
template <class With>
std::optional<Plan> roomy_plan(const With& with, const PlacementRequest& request, std::int64_t wanted,
                               std::size_t way) {
  try {
    Plan plan = with({true, false, wanted, way});
    if (!plan.fits() || (streams(plan) && names_bytes(request))) return std::nullopt;
    if (request.evaluations == 1 || plan.mode == "single" || streams(plan)) return plan;
    // With less to hold the devices may share the work more evenly.
    Plan even = with({false, false, wanted, way});
    return even.fits() && even.pass_time < kWorthReading * plan.pass_time ? even : plan;
  } catch (const PlacementError&) {  // an allocation without room for what is not kept: asked again with less
    return std::nullopt;
  }
}

/// The way of coding that takes the least memory of a device, which need not be the last: small pictures have no use
/// for tiles.
std::size_t thriftiest_way(const Ways& ways, const std::vector<ComponentNeed>& components,
                           const std::vector<DeviceRoom>& devices, const PlacementRequest& request) {
  const auto decoder = std::ranges::find(components, Phase::Decode, &ComponentNeed::phase);
  if (decoder == components.end() || decoder->coding.empty()) return 0;
  const auto coders = static_cast<double>(std::max<std::size_t>(coders_of(devices, request).size(), 1));
  const auto bytes = [&](std::size_t way) {
    const CodingNeed& need = decoder->coding[way];
    const double share = need.way == CodingWay::Whole ? 1.0 : 1.0 / coders;
    return (devices.front().id.is_cuda() ? need.on_gpu : need.on_cpu).bytes(share);
  };
  std::vector<std::size_t> all = ways.exact;
  all.insert(all.end(), ways.tiled.begin(), ways.tiled.end());
  return *std::ranges::min_element(all, {}, bytes);
}

/// What takes the least memory of all: one of these. Of small models a ring, or what is computed ahead, takes more than
/// it saves.
std::array<Means, 4> thriftiest(std::size_t way) {
  return {Means{.keeps_ahead = false, .streams = true, .passes = 1, .way = way},
          Means{.keeps_ahead = false, .streams = false, .passes = 1, .way = way},
          Means{.keeps_ahead = true, .streams = true, .passes = 1, .way = way},
          Means{.keeps_ahead = true, .streams = false, .passes = 1, .way = way}};
}

/// The first of these that fits, else that which lacks least.
template <class With>
Plan thriftiest_plan(const With& with, std::size_t way) {
  std::optional<Plan> out;
  for (const Means& means : thriftiest(way)) {
    Plan plan = with(means);
    if (plan.fits()) return plan;
    out = out ? less_lacking(std::move(*out), std::move(plan)) : std::move(plan);
  }
  return std::move(*out);
}

/// Each slower than those before it. What is streamed for want of memory leaves nothing kept ahead.
std::vector<Means> means_of_saving(const std::vector<std::size_t>& ways, std::int64_t wanted) {
  std::vector<Means> out;
  const auto add = [&](bool streams, std::int64_t passes) {
    for (const std::size_t way : ways) out.push_back({false, streams, passes, way});
  };
  for (std::int64_t passes = wanted; passes > 0; passes /= 2) add(false, passes);
  add(true, wanted);
  if (wanted > 1) add(true, 1);
  return out;
}

/// A plan that fits with a share of the work on every device as its memory allows, or the same with more on those that
/// have little, which then stream: if all devices are busier so.
template <class With>
Plan evener_plan(const With& with, Plan plan, const PlacementRequest& request, std::int64_t wanted, const Ways& ways) {
  if (!plan.fits() || plan.mode == "single" || request.evaluations == 1 || streams(plan)) return plan;
  for (const std::size_t way : ways.exact) {
    Plan streaming = with({false, true, wanted, way});
    if (!streaming.fits()) continue;
    return streaming.pass_time < kWorthStreaming * plan.pass_time ? streaming : plan;
  }
  return plan;
}

/// Two ways to make a plan with some means of saving memory.
struct Makers {
  std::function<Plan(const Means&)> with_passes;  ///< with just so many passes at once
  std::function<Plan(const Means&)> with;         ///< with more where blocks are streamed and there is room
};

/// The fastest plan that streams no more than it must, or that which lacks least.
Plan keeping_plan(const Makers& makers, const std::vector<ComponentNeed>& components,
                  const std::vector<DeviceRoom>& devices, const PlacementRequest& request, std::int64_t wanted,
                  const Ways& ways) {
  const auto& with_passes = makers.with_passes;
  const auto& with = makers.with;
  for (const std::size_t way : ways.exact)
    if (std::optional<Plan> plan = roomy_plan(with, request, wanted, way)) return std::move(*plan);
  const std::size_t least = thriftiest_way(ways, components, devices, request);
  Plan last = thriftiest_plan(with, least);
  if (!last.fits()) return last;
  // Where not even the way that takes the least memory fits, the others need not be tried.
  std::map<std::pair<bool, std::int64_t>, bool> hopeless;
  const auto is_hopeless = [&](Means means) {
    const auto [known, is_new] = hopeless.try_emplace({means.streams, means.passes});
    means.way = least;
    if (is_new) known->second = !with_passes(means).fits();
    return known->second;
  };
  for (const std::vector<std::size_t>* group : {&ways.exact, &ways.tiled}) {
    for (const std::size_t way : *group)
      if (std::optional<Plan> plan = group == &ways.tiled ? roomy_plan(with, request, wanted, way) : std::nullopt)
        return std::move(*plan);
    for (const Means& means : means_of_saving(*group, wanted)) {
      if (means.way != group->front() && is_hopeless(means)) continue;
      if (Plan plan = with(means); plan.fits()) return plan;
    }
  }
  return last;
}

}  // namespace

Plan make_plan(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
               const PlacementRequest& request) {
  MGPU_CHECK(!devices.empty(), "a plan needs a device");
  const auto [wanted, of_streams] = wanted_passes(devices.size(), request);
  Makers makers;
  makers.with_passes = [&, wanted = wanted](const Means& means) {
    return plan_with(components, site_for(devices, request, means), request, means.passes, wanted);
  };
  makers.with = [&, wanted = wanted, of_streams = of_streams](const Means& means) {
    Plan plan = makers.with_passes(means);
    if (means.passes != wanted || of_streams <= wanted || !plan.fits() || !streams(plan)) return plan;
    Means shared = means;
    shared.passes = of_streams;
    Plan more = makers.with_passes(shared);
    return more.fits() ? more : plan;
  };
  const Ways ways = ways_of(components, request);
  return evener_plan(makers.with, keeping_plan(makers, components, devices, request, wanted, ways), request, wanted,
                     ways);
}

bool can_fit(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
             const PlacementRequest& request) {
  const auto with = [&](const Means& means) {
    return plan_with(components, site_for(devices, request, means), request, means.passes, means.passes);
  };
  const std::size_t least = thriftiest_way(ways_of(components, request), components, devices, request);
  return thriftiest_plan(with, least).fits();
}

}  // namespace mgpu
