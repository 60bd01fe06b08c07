#include "shard/placement.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <tuple>

#include "core/error.h"
#include "shard/amounts.h"
#include "shard/cut.h"

namespace mgpu {
namespace {

/// Whether a component lies on its devices during `phase`.
bool is_resident(const ComponentNeed& component, Phase phase) {
  return phase != Phase::Encode && component.phase != Phase::Encode;
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

PlacedComponent all_on(const ComponentNeed& need, const Site& site, std::size_t device) {
  return copies_on(need, site, {device});
}

/// Whether several devices code pictures together.
bool codes_together(const ComponentNeed& need, const Site& site) {
  return site.way > 0 && site.coders.size() > 1 && !need.coding.empty();
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
  if (lacks > 0.0) {
    Placement cut;
    add_encoder(cut, need, site);
    if (lacking(cut, site) < lacks) return cut.components.front();
  }
  return whole.components.front();
}

/// What has no allocation of its own beside what has.
Placement place_resident(const Placement& told, const ComponentNeed* diffusion, const ComponentNeed* decoder,
                         const Site& site) {
  Placement out = told;
  if (decoder && codes_together(*decoder, site)) {
    out.components.push_back(copies_on(*decoder, site, site.coders));
    decoder = nullptr;
  }
  if (diffusion) {
    add_diffusion(out, *diffusion, decoder, site);
    return out;
  }
  if (!decoder) return out;
  using Rank = std::tuple<double, double, double>;  // bytes lacking, slowness, want of room
  std::optional<Rank> best;
  Placement with_decoder;
  for (std::size_t d = 0; d < site.devices.size(); ++d) {
    Placement placement = out;
    placement.components.push_back(all_on(*decoder, site, d));
    const DeviceRoom& room = site.devices[d];
    const Rank rank{lacking(placement, site), 1.0 / room.speed, -room_for_weights(room)};
    if (best && !(rank < *best)) continue;
    best = rank;
    with_decoder = std::move(placement);
  }
  return with_decoder;
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

PlacedComponent nowhere(const ComponentNeed& need, const Site& site) {
  const std::size_t devices = site.devices.size();
  return {.need = &need,
          .chain = Chain(need, site.keeps_ahead),
          .runs = std::vector<UnitRange>(devices),
          .loans = std::vector<Loan>(devices),
          .coding_bytes = std::vector<std::uint64_t>(devices)};
}

PlacedComponent copies_on(const ComponentNeed& need, const Site& site, const std::vector<std::size_t>& devices) {
  PlacedComponent out = nowhere(need, site);
  for (const std::size_t device : devices) out.runs[device] = {0, out.chain.units()};
  set_coding(out, site);
  return out;
}

std::uint64_t need_in_its_phases(const ComponentNeed& component, const PhaseBytes& peak) {
  return component.phase == Phase::Encode ? peak.encode : std::max(peak.sample, peak.decode);
}

double lacking(const Placement& placement, std::size_t device, const DeviceRoom& room) {
  const auto most = static_cast<double>(highest(placement.peak(device, room)));
  return std::max(0.0, most - static_cast<double>(room.limit_bytes));
}

double lacking(const Placement& placement, const Site& site) {
  double most = 0.0;
  for (std::size_t d = 0; d < site.devices.size(); ++d) most = std::max(most, lacking(placement, d, site.devices[d]));
  return most;
}

bool lends_to(const DeviceId& device, const Site& site) {
  return site.streams && device != DeviceId::cpu() &&
         std::ranges::find(site.donors, DeviceId::cpu(), &DeviceRoom::id) != site.donors.end();
}

void lend(Placement& placement, PlacedComponent& placed, std::size_t device, const Site& site) {
  placed.loans[device] = {};
  const DeviceRoom& room = site.devices[device];
  if (placed.need->whole || placed.runs[device].empty() || !lends_to(room.id, site)) return;
  const PhaseBytes peak = placement.peak(device, room);
  const std::uint64_t needed = need_in_its_phases(*placed.need, peak);
  if (needed <= room.limit_bytes) return;
  const LoanChoices& choices = site.loans.of(*placed.need, placed.chain, placed.runs[device]);
  placed.loans[device] = choices.loan(choices.that_frees(needed - room.limit_bytes));
}

const LoanChoices& LoanCache::of(const ComponentNeed& need, const Chain& chain, UnitRange run) {
  const auto ends = static_cast<std::size_t>(chain.units()) + 1;
  auto& all = choices_[&need];
  all.resize(ends * ends);
  auto& own = all[static_cast<std::size_t>(run.first) * ends + static_cast<std::size_t>(run.last)];
  if (!own) own = std::make_unique<LoanChoices>(chain.lendable(run), DeviceId::cpu());
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

void Load::add(const ComponentNeed& need, const Chain& chain, UnitRange run, std::uint64_t held,
               std::uint64_t coding_bytes, const InFlight& in_flight, const DeviceId& device) {
  if (run.empty()) return;
  used = true;
  const bool home = run.first == 0;
  const std::uint64_t bytes = held + (home ? need.home : 0);
  for (const Phase phase : kPhases) {
    const bool stays = is_resident(need, phase);
    if (stays) resident[phase] += bytes;
    if (need.phase == phase)
      turn[phase] = std::max(turn[phase], chain.activation_on(device) + coding_bytes + (stays ? 0 : bytes));
  }
  // Conditionings come there, wherever the encoders are, and are put together.
  if (home && need.phase != Phase::Encode) turn.encode = std::max(turn.encode, 2 * need.home);
  const std::uint64_t pass = need.passing + chain.of_pass(run) + (home ? need.latents : 0);
  const std::uint64_t text = need.of_text + chain.of_text(run);
  resident.sample += in_flight.sampling.passes * pass + in_flight.sampling.texts * text;
  resident.decode += in_flight.decoding.passes * pass + in_flight.decoding.texts * text;
}

PhaseBytes Load::peak(const DeviceRoom& room, const PhaseBytes& lends) const {
  if (!used && lends.encode + lends.sample == 0) return {};
  PhaseBytes out = resident;
  for (const Phase phase : kPhases) out[phase] += room.driver_bytes + turn[phase] + lends[phase];
  return out;
}

Load Placement::load(std::size_t device, const DeviceId& id) const {
  Load out;
  for (const PlacedComponent& placed : components)
    out.add(*placed.need, placed.chain, placed.runs[device], placed.bytes(device), placed.coding_bytes[device],
            in_flight, id);
  return out;
}

PhaseBytes Placement::peak(std::size_t device, const DeviceRoom& room) const {
  return load(device, room.id).peak(room, lent(room.id));
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
