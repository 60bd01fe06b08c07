#include "shard/placement.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <tuple>

#include "core/error.h"
#include "shard/amounts.h"
#include "shard/split.h"

namespace mgpu {
namespace {

// Streaming a whole model takes about twice as long as computing it: between a slow GPU on a fast link and the reverse.
constexpr double kStreamTime = 2.0;

/// Whether a component lies on its devices during `phase`.
bool is_resident(const ComponentNeed& component, Phase phase) {
  return phase != Phase::Encode && component.phase != Phase::Encode;
}

PlacedComponent nowhere(const ComponentNeed& need, const Site& site) {
  const std::size_t devices = site.devices.size();
  return {.need = &need,
          .chain = Chain(need, site.keeps_ahead),
          .runs = std::vector<Run>(devices),
          .loans = std::vector<Loan>(devices),
          .coding_bytes = std::vector<std::uint64_t>(devices)};
}

/// Sets what coding pictures asks of the devices that an autoencoder lies on.
void set_coding(PlacedComponent& placed, const Site& site) {
  if (placed.need->coding.empty()) return;
  placed.coding = &placed.need->coding[std::min(site.way, placed.need->coding.size() - 1)];
  std::vector<double> speeds;
  for (std::size_t d = 0; d < site.devices.size(); ++d)
    speeds.push_back(placed.runs[d].empty() ? 0.0 : site.devices[d].speed);
  for (std::size_t d = 0; d < site.devices.size(); ++d) {
    const auto& need = site.devices[d].id.is_cuda() ? placed.coding->on_gpu : placed.coding->on_cpu;
    placed.coding_bytes[d] = need.bytes(need.shares(speeds)[d]);
  }
}

/// A copy on each of these devices.
PlacedComponent copies_on(const ComponentNeed& need, const Site& site, const std::vector<std::size_t>& devices) {
  PlacedComponent out = nowhere(need, site);
  for (const std::size_t device : devices) out.runs[device] = {0, out.chain.units()};
  set_coding(out, site);
  return out;
}

PlacedComponent all_on(const ComponentNeed& need, const Site& site, std::size_t device) {
  return copies_on(need, site, {device});
}

/// Whether several devices code pictures together.
bool codes_together(const ComponentNeed& need, const Site& site) {
  return site.way > 0 && site.coders.size() > 1 && !need.coding.empty();
}

/// Bytes that the device lacks in its worst phase.
double lacking(const Placement& placement, std::size_t device, const DeviceRoom& room) {
  const auto most = static_cast<double>(highest(placement.peak(device, room)));
  return std::max(0.0, most - static_cast<double>(room.limit_bytes));
}

double lacking(const Placement& placement, const Site& site) {
  double most = 0.0;
  for (std::size_t d = 0; d < site.devices.size(); ++d) most = std::max(most, lacking(placement, d, site.devices[d]));
  return most;
}

/// Whether main memory may take what finds no room.
bool lends_memory(const Site& site) {
  return site.streams && std::ranges::find(site.donors, DeviceId::cpu(), &DeviceRoom::id) != site.donors.end();
}

/// Lends what a device lacks of a component of the placement, if that helps. Returns what it lacks then.
double lend(Placement& placement, PlacedComponent& placed, std::size_t device, const Site& site) {
  placed.loans[device] = {};
  const double lacks = lacking(placement, device, site.devices[device]);
  if (lacks == 0.0 || !lends_memory(site) || placed.need->whole) return lacks;
  placed.loans[device] =
      loan_that_frees(placed.chain.lendable(placed.runs[device]), DeviceId::cpu(), static_cast<std::uint64_t>(lacks));
  return lacking(placement, device, site.devices[device]);
}

/// The time that decoding pictures takes a device, a pass of the diffusion model: it has so much less for blocks.
double decoding_time(const Placement& placement, std::size_t device) {
  for (const PlacedComponent& placed : placement.components) {
    if (placed.need->phase != Phase::Decode || placed.runs[device].empty()) continue;
    const auto coders = std::ranges::count_if(placed.runs, [](Run run) { return !run.empty(); });
    return placed.need->time_a_pass / static_cast<double>(coders);
  }
  return 0.0;
}

/// Costs of every run on every device.
struct RunCosts {
  double lacks = 0.0;
  double lent = 0.0;
  double time = 0.0;
};

RunCosts costs_of(Placement& placement, PlacedComponent& placed, std::size_t device, Run run, const Site& site) {
  placed.runs[device] = run;
  RunCosts out;
  out.lacks = lend(placement, placed, device, site);
  out.lent = static_cast<double>(placed.loans[device].bytes);
  out.time = pass_time(placement, placed, device, site);
  return out;
}

/// Completes a placement with a component, cut so that the devices lack least, then that the slowest takes the least
/// time, then that least is streamed to any (of one pass at a time, which waits for all of it, that first), then that
/// time is taken evenly, then memory. Returns what that comes to.
Split add_cut(Placement& placement, const ComponentNeed& need, const Site& site) {
  placement.components.push_back(nowhere(need, site));
  PlacedComponent& placed = placement.components.back();
  const Chain& chain = placed.chain;
  const auto ends = static_cast<std::size_t>(chain.units()) + 1;
  std::vector<RunCosts> table(site.devices.size() * ends * ends);
  const auto costs = [&](std::size_t d, Run run) -> RunCosts& {
    return table[(d * ends + static_cast<std::size_t>(run.first)) * ends + static_cast<std::size_t>(run.last)];
  };
  for (std::size_t d = 0; d < site.devices.size(); ++d) {
    for (int first = 0; first <= chain.units(); ++first)
      for (int last = first; last <= chain.units(); ++last)
        costs(d, {first, last}) = costs_of(placement, placed, d, {first, last}, site);
    placed.runs[d] = {};
    placed.loans[d] = {};
  }
  const auto lacks = [&](std::size_t d, Run run) { return costs(d, run).lacks; };
  const auto lent = [&](std::size_t d, Run run) { return costs(d, run).lent; };
  const auto time = [&](std::size_t d, Run run) { return costs(d, run).time; };
  const auto uneven_time = [&](std::size_t d, Run run) { return chain.time(run) * time(d, run); };
  const auto uneven_memory = [&](std::size_t d, Run run) {
    const auto bytes = static_cast<double>(chain.bytes(run));
    return bytes * bytes / std::max(1.0, room_for_weights(site.devices[d]));
  };
  const bool flows = placement.in_flight.sampling.passes > 0;
  Split split = best_split(chain.units(), site.devices.size(),
                           flows ? std::vector<RunCost>{lacks, time, lent} : std::vector<RunCost>{lacks, lent, time},
                           {uneven_time, uneven_memory});
  placed.runs = split.runs;
  for (std::size_t d = 0; d < site.devices.size(); ++d) lend(placement, placed, d, site);
  return split;
}

/// An encoder: whole on the fastest device that holds it, among equals on that with most room; else cut.
PlacedComponent place_encoder(const ComponentNeed& need, const Site& site) {
  using Rank = std::tuple<double, double, double>;  // bytes lacking, slowness, want of room
  std::optional<Rank> best;
  Placement whole;
  for (std::size_t d = 0; d < site.devices.size(); ++d) {
    Placement here;
    here.components.push_back(all_on(need, site, d));
    const Rank rank{lacking(here, site), -site.devices[d].speed, -room_for_weights(site.devices[d])};
    if (best && !(rank < *best)) continue;
    best = rank;
    whole = std::move(here);
  }
  const double lacks = std::get<0>(*best);
  Placement cut;
  const bool should_cut = lacks > 0.0 && add_cut(cut, need, site).worst[0] < lacks;
  return should_cut ? cut.components.front() : whole.components.front();
}

/// The diffusion model cut beside the autoencoder, whichever device holds that: what is best for both.
Placement place_resident(const Placement& told, const ComponentNeed* diffusion, const ComponentNeed* decoder,
                         const Site& site) {
  using Rank = std::array<double, 6>;
  std::optional<Rank> best;
  Placement out;
  const bool together = decoder && codes_together(*decoder, site);
  for (std::size_t home = 0; home < (decoder && !together ? site.devices.size() : 1); ++home) {
    Placement placement = told;
    const DeviceRoom& room = site.devices[home];
    if (decoder)
      placement.components.push_back(together ? copies_on(*decoder, site, site.coders) : all_on(*decoder, site, home));
    Rank rank{lacking(placement, site), 0.0, 1.0 / room.speed, 0.0, 0.0, -room_for_weights(room)};
    if (diffusion) {
      const Split split = add_cut(placement, *diffusion, site);
      rank = {split.worst[0], split.worst[1], split.worst[2], split.sums[0], split.sums[1], -room_for_weights(room)};
    }
    if (best && !(rank < *best)) continue;
    best = rank;
    out = std::move(placement);
  }
  return out;
}

/// The autoencoder's encoder where its decoder lies.
PlacedComponent beside_decoder(const ComponentNeed& need, const Placement& placement, const Site& site) {
  std::vector<std::size_t> devices;
  for (const PlacedComponent& placed : placement.components)
    for (std::size_t d = 0; placed.need->phase == Phase::Decode && d < placed.runs.size(); ++d)
      if (!placed.runs[d].empty()) devices.push_back(d);
  return copies_on(need, site, devices);
}

}  // namespace

double pass_time(const Placement& placement, const PlacedComponent& diffusion, std::size_t device, const Site& site) {
  const Chain& chain = diffusion.chain;
  const double work = chain.time(diffusion.runs[device]) + decoding_time(placement, device) * chain.time();
  // Blocks are brought while others are computed, for all passes that go together.
  const double brought = static_cast<double>(diffusion.loans[device].bytes) /
                         static_cast<double>(std::max<std::uint64_t>(1, chain.bytes()));
  const std::uint64_t together = placement.in_flight.sampling.passes / site.devices.size() + 1;
  return std::max(work / site.devices[device].speed,
                  kStreamTime * chain.time() * brought / static_cast<double>(together));
}

double room_for_weights(const DeviceRoom& room) {
  return static_cast<double>(room.limit_bytes) - static_cast<double>(room.driver_bytes);
}

InFlight one_by_one(const PlacementRequest& request) {
  const std::int64_t texts = std::min(request.texts_a_run, request.texts);
  return {.sampling = {.passes = 0, .texts = static_cast<std::uint64_t>(texts)}, .decoding = {}};
}

InFlight in_flight(const PlacementRequest& request, std::int64_t passes) {
  // Runs begin while passes are too few, so that the last one may bring more texts than there are passes.
  const std::int64_t texts = std::min(passes - 1 + request.texts_a_run, request.texts);
  const std::int64_t others = request.evaluations - 1;
  const auto most = [](std::int64_t count, std::int64_t all) {
    return static_cast<std::uint64_t>(std::min(count, all));
  };
  return {.sampling = {most(passes - 1, others), most(texts, request.evaluations)},
          .decoding = {most(passes, others), most(texts, others)}};
}

PhaseBytes Placement::peak(std::size_t device, const DeviceRoom& room) const {
  PhaseBytes resident{}, turn{};
  bool used = false;
  for (const PlacedComponent& placed : components) {
    if (placed.runs[device].empty()) continue;
    used = true;
    const ComponentNeed& need = *placed.need;
    const bool home = placed.runs[device].first == 0;
    const std::uint64_t bytes = placed.bytes(device) + (home ? need.home : 0);
    for (const Phase phase : kPhases) {
      const bool stays = is_resident(need, phase);
      if (stays) resident[phase] += bytes;
      if (need.phase == phase)
        turn[phase] = std::max(turn[phase],
                               placed.chain.activation_on(room.id) + placed.coding_bytes[device] + (stays ? 0 : bytes));
    }
    // Conditionings come there, wherever the encoders are, and are put together.
    if (home && need.phase != Phase::Encode) turn.encode = std::max(turn.encode, 2 * need.home);
    const std::uint64_t pass = need.passing + placed.chain.of_pass(placed.runs[device]) + (home ? need.latents : 0);
    const std::uint64_t text = placed.chain.of_text(placed.runs[device]);
    resident.sample += in_flight.sampling.passes * pass + in_flight.sampling.texts * text;
    resident.decode += in_flight.decoding.passes * pass + in_flight.decoding.texts * text;
  }
  const PhaseBytes lends = lent(room.id);
  if (!used && lends.encode + lends.sample == 0) return {};
  for (const Phase phase : kPhases) resident[phase] += room.driver_bytes + turn[phase] + lends[phase];
  return resident;
}

PhaseBytes Placement::lent(const DeviceId& donor) const {
  PhaseBytes out{};
  for (const PlacedComponent& placed : components) {
    std::uint64_t bytes = 0;
    for (std::size_t d = 0; d < placed.runs.size(); ++d) {
      if (placed.loans[d].bytes == 0) continue;
      const std::vector<LendableBlock> blocks = placed.chain.lendable(placed.runs[d]);
      for (std::size_t i = 0; i < blocks.size(); ++i)
        if (placed.loans[d].donor_of(i) == donor) bytes += blocks[i].bytes;
    }
    for (const Phase phase : kPhases) {
      if (is_resident(*placed.need, phase)) {
        out[phase] += bytes;
      } else if (placed.need->phase == phase) {
        out[phase] = std::max(out[phase], bytes);  // encoders take turns
      }
    }
  }
  return out;
}

Placement place_on(const std::vector<ComponentNeed>& components, const Site& site, std::size_t device) {
  Placement out{.components = {}, .in_flight = site.in_flight};
  for (const ComponentNeed& need : components) {
    // An encoder is alone on the device, and so is each of its loans.
    Placement alone;
    Placement& group = need.phase == Phase::Encode ? alone : out;
    group.components.push_back(all_on(need, site, device));
    if (need.phase == Phase::Encode) {
      lend(alone, alone.components.back(), device, site);
      out.components.push_back(std::move(alone.components.back()));
    }
  }
  for (PlacedComponent& placed : out.components)
    if (placed.need->phase == Phase::Sample) lend(out, placed, device, site);
  return out;
}

PlacedComponent place_as_told(const ComponentNeed& need, const AllocationString& allocation, const Site& site) {
  PlacedComponent out = nowhere(need, site);
  try {
    Allotment allotment = allot(allocation, need, out.chain, site.devices, site.donors);
    // What serves only before the steps is never lent: where blocks are, shares are of the rest.
    if (site.keeps_ahead && !std::ranges::all_of(allotment.lent, &std::vector<DonorShare>::empty))
      allotment = allot(allocation, need, Chain(need, /*keeps_ahead=*/false), site.devices, site.donors);
    out.runs = allotment.runs;
    for (std::size_t d = 0; d < out.runs.size(); ++d)
      if (!allotment.lent[d].empty()) out.loans[d] = spread_loan(out.chain.lendable(out.runs[d]), allotment.lent[d]);
    set_coding(out, site);
    return out;
  } catch (const AllocationError& error) {
    throw PlacementError(need.name, error);
  }
}

Placement place_over(const std::vector<ComponentNeed>& components, const Site& site,
                     const std::map<std::string, AllocationString>& allocations) {
  Placement encoders, told{.components = {}, .in_flight = site.in_flight};
  const ComponentNeed *diffusion = nullptr, *decoder = nullptr, *image_encoder = nullptr;
  for (const ComponentNeed& need : components) {
    const auto allocation = allocations.find(need.name);
    std::vector<PlacedComponent>& group = (need.phase == Phase::Encode ? encoders : told).components;
    if (allocation != allocations.end()) {
      group.push_back(place_as_told(need, allocation->second, site));
    } else if (need.phase == Phase::Encode && !need.coding.empty()) {
      image_encoder = &need;
    } else if (need.phase == Phase::Encode) {
      group.push_back(place_encoder(need, site));
    } else {
      const ComponentNeed*& own = need.phase == Phase::Sample ? diffusion : decoder;
      MGPU_CHECK(!own, "{} and {} share a phase", own->name, need.name);
      own = &need;
    }
  }
  Placement out = place_resident(told, diffusion, decoder, site);
  std::ranges::move(encoders.components, std::back_inserter(out.components));
  if (image_encoder) out.components.push_back(beside_decoder(*image_encoder, out, site));
  // In the order in which they were given.
  std::ranges::sort(out.components, {}, [](const PlacedComponent& placed) { return placed.need; });
  return out;
}

}  // namespace mgpu
