#include "shard/placement.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <tuple>

#include "core/error.h"
#include "shard/amounts.h"
#include "shard/split.h"

namespace mgpu {
namespace {

using Devices = std::vector<DeviceRoom>;

// Decoding a picture costs about what one pass of the diffusion model does, and a picture takes some twenty passes.
constexpr double kPassesPerDecode = 20.0;

/// Whether a component lies on its devices during `phase`.
bool is_resident(const ComponentNeed& component, Phase phase) {
  return phase != Phase::Encode && component.phase != Phase::Encode;
}

PlacedComponent all_on(const ComponentNeed& need, std::size_t devices, std::size_t device) {
  PlacedComponent out{&need, Chain(need), std::vector<Run>(devices)};
  out.runs[device] = {0, out.chain.units()};
  return out;
}

/// Bytes that the device lacks in its worst phase.
double lacking(const Placement& placement, std::size_t device, const DeviceRoom& room) {
  const PhaseBytes peak = placement.peak(device, room);
  const auto most = static_cast<double>(std::max({peak.encode, peak.sample, peak.decode}));
  return std::max(0.0, most - static_cast<double>(room.limit_bytes));
}

double lacking(const Placement& placement, const Devices& devices) {
  double most = 0.0;
  for (std::size_t d = 0; d < devices.size(); ++d) most = std::max(most, lacking(placement, d, devices[d]));
  return most;
}

/// Completes a placement with a component, cut so that the devices lack least, then that the slowest takes the least
/// time, then that time is taken evenly, then memory. Returns what that comes to.
Split add_cut(Placement& placement, const ComponentNeed& need, const Devices& devices) {
  placement.components.push_back({&need, Chain(need), std::vector<Run>(devices.size())});
  PlacedComponent& placed = placement.components.back();
  const Chain& chain = placed.chain;
  const auto lacks = [&](std::size_t d, Run run) {
    placed.runs[d] = run;
    return lacking(placement, d, devices[d]);
  };
  const auto time = [&](std::size_t d, Run run) { return chain.time(run) / devices[d].speed; };
  const auto uneven_time = [&](std::size_t d, Run run) { return chain.time(run) * time(d, run); };
  const auto uneven_memory = [&](std::size_t d, Run run) {
    const auto bytes = static_cast<double>(chain.bytes(run));
    return bytes * bytes / std::max(1.0, room_for_weights(devices[d]));
  };
  Split split = best_split(chain.units(), devices.size(), {lacks, time}, {uneven_time, uneven_memory});
  placed.runs = split.runs;
  return split;
}

/// An encoder: whole on the fastest device that holds it, among equals on that with most room; else cut.
PlacedComponent place_encoder(const ComponentNeed& need, const Devices& devices) {
  using Rank = std::tuple<double, double, double>;  // bytes lacking, slowness, want of room
  std::optional<Rank> best;
  Placement whole;
  for (std::size_t d = 0; d < devices.size(); ++d) {
    Placement here;
    here.components.push_back(all_on(need, devices.size(), d));
    const Rank rank{lacking(here, devices), -devices[d].speed, -room_for_weights(devices[d])};
    if (best && !(rank < *best)) continue;
    best = rank;
    whole = std::move(here);
  }
  const double lacks = std::get<0>(*best);
  Placement cut;
  const bool should_cut = !need.whole && lacks > 0.0 && add_cut(cut, need, devices).worst[0] < lacks;
  return should_cut ? cut.components.front() : whole.components.front();
}

/// As many runs are sampled at once as there are stages, if the job has them: a device's blocks are one, a UNet's two
/// but for the innermost device's.
std::int64_t most_under_way(const std::vector<ComponentNeed>& components, const Devices& devices,
                            const PlacementRequest& request) {
  const auto count = static_cast<std::int64_t>(devices.size());
  if (count == 1) return 1;
  const bool mirrored = std::ranges::any_of(components, &ComponentNeed::mirrored);
  return std::min(request.evaluations, request.evaluations_of_run * (mirrored ? 2 * count - 1 : count));
}

/// The diffusion model cut beside the autoencoder, whichever device holds that: what is best for both.
Placement place_resident(const Placement& told, const ComponentNeed* diffusion, const ComponentNeed* decoder,
                         const Devices& devices) {
  using Rank = std::tuple<double, double, double, double, double>;
  std::optional<Rank> best;
  Placement out;
  for (std::size_t home = 0; home < (decoder ? devices.size() : 1); ++home) {
    Placement placement = told;
    if (decoder) placement.components.push_back(all_on(*decoder, devices.size(), home));
    Rank rank{lacking(placement, devices), 1.0 / devices[home].speed, 0.0, 0.0, -room_for_weights(devices[home])};
    if (diffusion) {
      const Split split = add_cut(placement, *diffusion, devices);
      const double decode = placement.components.back().chain.time() / devices[home].speed;
      rank = {split.worst[0], kPassesPerDecode * split.worst[1] + decode, split.sums[0], split.sums[1],
              -room_for_weights(devices[home])};
    }
    if (best && !(rank < *best)) continue;
    best = rank;
    out = std::move(placement);
  }
  return out;
}

}  // namespace

double room_for_weights(const DeviceRoom& room) {
  return static_cast<double>(room.limit_bytes) - static_cast<double>(room.driver_bytes);
}

PhaseBytes Placement::peak(std::size_t device, const DeviceRoom& room) const {
  PhaseBytes resident{}, turn{};
  bool used = false;
  for (const PlacedComponent& placed : components) {
    const Run run = placed.runs[device];
    if (run.empty()) continue;
    used = true;
    const bool home = run.first == 0;
    const std::uint64_t bytes = placed.chain.held(run) + (home ? placed.need->home : 0);
    const std::uint64_t further = home ? placed.need->further_at_home : placed.need->further;
    const std::uint64_t work =
        placed.need->activation_on(room.id) + further * (static_cast<std::uint64_t>(under_way) - 1);
    for (const Phase phase : kPhases) {
      const bool stays = is_resident(*placed.need, phase);
      if (stays) resident[phase] += bytes;
      // Conditionings come there, wherever the encoders are, and are put together.
      if (home && placed.need->phase != Phase::Encode) turn.encode = std::max(turn.encode, 2 * placed.need->home);
      if (placed.need->phase == phase) turn[phase] = std::max(turn[phase], work + (stays ? 0 : bytes));
    }
  }
  if (!used) return {};
  for (const Phase phase : kPhases) resident[phase] += room.driver_bytes + turn[phase];
  return resident;
}

Placement place_on(const std::vector<ComponentNeed>& components, const Devices& devices, std::size_t device) {
  Placement out;
  for (const ComponentNeed& need : components) out.components.push_back(all_on(need, devices.size(), device));
  return out;
}

PlacedComponent place_as_told(const ComponentNeed& need, const AllocationString& allocation, const Devices& devices) {
  Chain chain(need);
  try {
    std::vector<Run> runs = allocated_runs(allocation, need, chain, devices);
    return {&need, std::move(chain), std::move(runs)};
  } catch (const AllocationError& error) {
    throw PlacementError(need.name, error);
  }
}

Placement place_over(const std::vector<ComponentNeed>& components, const Devices& devices,
                     const PlacementRequest& request) {
  Placement encoders, told;
  told.under_way = most_under_way(components, devices, request);
  const ComponentNeed *diffusion = nullptr, *decoder = nullptr;
  for (const ComponentNeed& need : components) {
    const auto allocation = request.allocation.find(need.name);
    std::vector<PlacedComponent>& group = (need.phase == Phase::Encode ? encoders : told).components;
    if (allocation != request.allocation.end()) {
      group.push_back(place_as_told(need, allocation->second, devices));
    } else if (need.phase == Phase::Encode) {
      group.push_back(place_encoder(need, devices));
    } else {
      const ComponentNeed*& own = need.phase == Phase::Sample ? diffusion : decoder;
      MGPU_CHECK(!own, "{} and {} share a phase", own->name, need.name);
      own = &need;
    }
  }
  Placement out = place_resident(told, diffusion, decoder, devices);
  std::ranges::move(encoders.components, std::back_inserter(out.components));
  // In the order in which they were given.
  std::ranges::sort(out.components, {}, [](const PlacedComponent& placed) { return placed.need; });
  return out;
}

}  // namespace mgpu
