#include "shard/placement.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <tuple>

#include "core/error.h"
#include "shard/allocation_ranges.h"
#include "shard/cut.h"

namespace mgpu {
namespace {

/// Whether a component lies on its devices during `phase`.
bool is_resident(const ComponentNeed& component, Phase phase) {
  return phase != Phase::Encode && component.phase != Phase::Encode;
}

/// Sets what coding pictures asks of the devices that an autoencoder lies on.
void set_decode(PlacedComponent& placed, const PlacementContext& context) {
  if (placed.need->modes.empty()) return;
  placed.mode = &placed.need->modes[std::min(context.decode_mode, placed.need->modes.size() - 1)];
  std::vector<double> speeds;
  for (std::size_t d = 0; d < context.devices.size(); ++d)
    speeds.push_back(placed.runs[d].empty() ? 0.0 : context.devices[d].speed);
  for (std::size_t d = 0; d < context.devices.size(); ++d) {
    const auto& need = context.devices[d].id.is_cuda() ? placed.mode->on_gpu : placed.mode->on_cpu;
    placed.decode_bytes[d] = need.bytes(need.shares(speeds)[d]);
  }
}

PlacedComponent all_on(const ComponentNeed& need, const PlacementContext& context, std::size_t device) {
  return copies_on(need, context, {device});
}

/// Whether several devices code pictures together.
bool codes_together(const ComponentNeed& need, const PlacementContext& context) {
  return context.decode_mode > 0 && context.vae_devices.size() > 1 && !need.modes.empty();
}

/// An encoder: whole on the fastest device that holds it, among equals on that with most room; else cut.
PlacedComponent place_encoder(const ComponentNeed& need, const PlacementContext& context) {
  using Rank = std::tuple<double, double, double>;  // bytes lacking, slowness, want of room
  std::optional<Rank> best;
  Placement whole;
  for (std::size_t d = 0; d < context.devices.size(); ++d) {
    Placement here;
    here.components.push_back(all_on(need, context, d));
    const Rank rank{lacking(here, context), -context.devices[d].speed, -room_for_weights(context.devices[d])};
    if (best && !(rank < *best)) continue;
    best = rank;
    whole = std::move(here);
  }
  const double lacks = std::get<0>(*best);
  if (lacks > 0.0) {
    Placement cut;
    add_encoder(cut, need, context);
    if (lacking(cut, context) < lacks) return cut.components.front();
  }
  return whole.components.front();
}

/// What has no allocation of its own beside what has.
Placement place_resident(const Placement& allocated, const ComponentNeed* diffusion, const ComponentNeed* decoder,
                         const PlacementContext& context) {
  Placement out = allocated;
  if (decoder && codes_together(*decoder, context)) {
    out.components.push_back(copies_on(*decoder, context, context.vae_devices));
    decoder = nullptr;
  }
  if (diffusion) {
    add_diffusion(out, *diffusion, decoder, context);
    return out;
  }
  if (!decoder) return out;
  using Rank = std::tuple<double, double, double>;  // bytes lacking, slowness, want of room
  std::optional<Rank> best;
  Placement with_decoder;
  for (std::size_t d = 0; d < context.devices.size(); ++d) {
    Placement placement = out;
    placement.components.push_back(all_on(*decoder, context, d));
    const DeviceRoom& room = context.devices[d];
    const Rank rank{lacking(placement, context), 1.0 / room.speed, -room_for_weights(room)};
    if (best && !(rank < *best)) continue;
    best = rank;
    with_decoder = std::move(placement);
  }
  return with_decoder;
}

/// The autoencoder's encoder where its decoder lies.
PlacedComponent beside_decoder(const ComponentNeed& need, const Placement& placement, const PlacementContext& context) {
  std::vector<std::size_t> devices;
  for (const PlacedComponent& placed : placement.components)
    for (std::size_t d = 0; placed.need->phase == Phase::Decode && d < placed.runs.size(); ++d)
      if (!placed.runs[d].empty()) devices.push_back(d);
  return copies_on(need, context, devices);
}

}  // namespace

PlacedComponent nowhere(const ComponentNeed& need, const PlacementContext& context) {
  const std::size_t devices = context.devices.size();
  return {.need = &need,
          .chain = Chain(need, context.keeps_precomputed),
          .runs = std::vector<ChainRange>(devices),
          .offloads = std::vector<OffloadedBlocks>(devices),
          .decode_bytes = std::vector<std::uint64_t>(devices)};
}

PlacedComponent copies_on(const ComponentNeed& need, const PlacementContext& context,
                          const std::vector<std::size_t>& devices) {
  PlacedComponent out = nowhere(need, context);
  for (const std::size_t device : devices) out.runs[device] = {0, out.chain.units()};
  set_decode(out, context);
  return out;
}

std::uint64_t need_in_its_phases(const ComponentNeed& component, const PhaseBytes& peak) {
  return component.phase == Phase::Encode ? peak.encode : std::max(peak.sample, peak.decode);
}

double lacking(const Placement& placement, std::size_t device, const DeviceRoom& room) {
  const auto most = static_cast<double>(highest(placement.peak(device, room)));
  return std::max(0.0, most - static_cast<double>(room.limit_bytes));
}

double lacking(const Placement& placement, const PlacementContext& context) {
  double most = 0.0;
  for (std::size_t d = 0; d < context.devices.size(); ++d)
    most = std::max(most, lacking(placement, d, context.devices[d]));
  return most;
}

bool can_offload(const DeviceId& device, const PlacementContext& context) {
  return context.streams && device != DeviceId::cpu() &&
         std::ranges::find(context.donors, DeviceId::cpu(), &DeviceRoom::id) != context.donors.end();
}

void offload_lacking(Placement& placement, PlacedComponent& placed, std::size_t device,
                     const PlacementContext& context) {
  placed.offloads[device] = {};
  const DeviceRoom& room = context.devices[device];
  if (placed.need->indivisible || placed.runs[device].empty() || !can_offload(room.id, context)) return;
  const PhaseBytes peak = placement.peak(device, room);
  const std::uint64_t needed = need_in_its_phases(*placed.need, peak);
  if (needed <= room.limit_bytes) return;
  const OffloadChoices& choices = context.offloads.of(*placed.need, placed.chain, placed.runs[device]);
  placed.offloads[device] = choices.offload(choices.that_frees(needed - room.limit_bytes));
}

const OffloadChoices& OffloadCache::of(const ComponentNeed& need, const Chain& chain, ChainRange run) {
  const auto ends = static_cast<std::size_t>(chain.units()) + 1;
  auto& all = choices_[&need];
  all.resize(ends * ends);
  auto& own = all[static_cast<std::size_t>(run.first) * ends + static_cast<std::size_t>(run.last)];
  if (!own) own = std::make_unique<OffloadChoices>(chain.offloadable(run), DeviceId::cpu());
  return *own;
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

void Load::add(const ComponentNeed& need, const Chain& chain, ChainRange run, std::uint64_t held,
               std::uint64_t decode_bytes, const InFlight& in_flight, const DeviceId& device) {
  if (run.empty()) return;
  used = true;
  const bool is_first = run.first == 0;
  const std::uint64_t bytes = held + (is_first ? need.latent_device_bytes : 0);
  for (const Phase phase : kPhases) {
    const bool stays = is_resident(need, phase);
    if (stays) resident[phase] += bytes;
    if (need.phase == phase)
      transient[phase] = std::max(transient[phase], chain.activation_on(device) + decode_bytes + (stays ? 0 : bytes));
  }
  // Conditionings come there, wherever the encoders are, and are put together.
  if (is_first && need.phase != Phase::Encode)
    transient.encode = std::max(transient.encode, 2 * need.latent_device_bytes);
  const std::uint64_t pass = need.pass_bytes + chain.bytes_per_pass(run) + (is_first ? need.latents : 0);
  const std::uint64_t text = need.bytes_per_prompt + chain.bytes_per_prompt(run);
  resident.sample += in_flight.sampling.passes * pass + in_flight.sampling.texts * text;
  resident.decode += in_flight.decoding.passes * pass + in_flight.decoding.texts * text;
}

PhaseBytes Load::peak(const DeviceRoom& room, const PhaseBytes& kept_for_others) const {
  if (!used && kept_for_others.encode + kept_for_others.sample == 0) return {};
  PhaseBytes out = resident;
  for (const Phase phase : kPhases) out[phase] += room.driver_bytes + transient[phase] + kept_for_others[phase];
  return out;
}

Load Placement::load(std::size_t device, const DeviceId& id) const {
  Load out;
  for (const PlacedComponent& placed : components)
    out.add(*placed.need, placed.chain, placed.runs[device], placed.bytes(device), placed.decode_bytes[device],
            in_flight, id);
  return out;
}

PhaseBytes Placement::peak(std::size_t device, const DeviceRoom& room) const {
  return load(device, room.id).peak(room, offloaded(room.id));
}

PhaseBytes Placement::offloaded(const DeviceId& donor) const {
  PhaseBytes out{};
  for (const PlacedComponent& placed : components) {
    std::uint64_t bytes = 0;
    for (std::size_t d = 0; d < placed.runs.size(); ++d) {
      if (placed.offloads[d].bytes == 0) continue;
      const std::vector<OffloadableBlock> blocks = placed.chain.offloadable(placed.runs[d]);
      for (std::size_t i = 0; i < blocks.size(); ++i)
        if (placed.offloads[d].donor_of(i) == donor) bytes += blocks[i].bytes;
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

Placement place_on(const std::vector<ComponentNeed>& components, const PlacementContext& context, std::size_t device) {
  Placement out{.components = {}, .in_flight = context.in_flight};
  for (const ComponentNeed& need : components) {
    // An encoder is alone on the device, and so is each of its loans.
    Placement alone;
    Placement& group = need.phase == Phase::Encode ? alone : out;
    group.components.push_back(all_on(need, context, device));
    if (need.phase == Phase::Encode) {
      offload_lacking(alone, alone.components.back(), device, context);
      out.components.push_back(std::move(alone.components.back()));
    }
  }
  for (PlacedComponent& placed : out.components)
    if (placed.need->phase == Phase::Sample) offload_lacking(out, placed, device, context);
  return out;
}

PlacedComponent place_by_allocation(const ComponentNeed& need, const AllocationString& allocation,
                                    const PlacementContext& context) {
  PlacedComponent out = nowhere(need, context);
  try {
    Allotment allotment = allot(allocation, need, out.chain, context.devices, context.donors);
    // What serves only before the steps is never lent: where blocks are, shares are of the rest.
    if (context.keeps_precomputed && !std::ranges::all_of(allotment.offloaded, &std::vector<DonorShare>::empty))
      allotment = allot(allocation, need, Chain(need, /*keeps_precomputed=*/false), context.devices, context.donors);
    out.runs = allotment.runs;
    for (std::size_t d = 0; d < out.runs.size(); ++d)
      if (!allotment.offloaded[d].empty())
        out.offloads[d] = spread_offload(out.chain.offloadable(out.runs[d]), allotment.offloaded[d]);
    set_decode(out, context);
    return out;
  } catch (const AllocationError& error) {
    throw PlacementError(need.name, error);
  }
}

Placement place_over(const std::vector<ComponentNeed>& components, const PlacementContext& context,
                     const std::map<std::string, AllocationString>& allocations) {
  Placement encoders, allocated{.components = {}, .in_flight = context.in_flight};
  const ComponentNeed *diffusion = nullptr, *decoder = nullptr, *image_encoder = nullptr;
  for (const ComponentNeed& need : components) {
    const auto allocation = allocations.find(need.name);
    std::vector<PlacedComponent>& group = (need.phase == Phase::Encode ? encoders : allocated).components;
    if (allocation != allocations.end()) {
      group.push_back(place_by_allocation(need, allocation->second, context));
    } else if (need.phase == Phase::Encode && !need.modes.empty()) {
      image_encoder = &need;
    } else if (need.phase == Phase::Encode) {
      group.push_back(place_encoder(need, context));
    } else {
      const ComponentNeed*& own = need.phase == Phase::Sample ? diffusion : decoder;
      MGPU_CHECK(!own, "{} and {} share a phase", own->name, need.name);
      own = &need;
    }
  }
  Placement out = place_resident(allocated, diffusion, decoder, context);
  std::ranges::move(encoders.components, std::back_inserter(out.components));
  if (image_encoder) out.components.push_back(beside_decoder(*image_encoder, out, context));
  // In the order in which they were given.
  std::ranges::sort(out.components, {}, [](const PlacedComponent& placed) { return placed.need; });
  return out;
}

}  // namespace mgpu
