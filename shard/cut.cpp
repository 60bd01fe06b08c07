#include "shard/cut.h"

#include <algorithm>
#include <cmath>

#include "shard/job_time.h"
#include "shard/split.h"

namespace mgpu {
namespace {

/// A component to be cut beside what lies on the devices already.
class Cutter {
 public:
  Cutter(const Placement& placement, const ComponentNeed& need, const ComponentNeed* decoder, const Site& site)
      : placement_(placement), need_(need), site_(site), chain_(need, site.keeps_ahead) {
    for (std::size_t d = 0; d < site.devices.size(); ++d) {
      const DeviceId& id = site.devices[d].id;
      beside_.push_back(placement.load(d, id));
      lends_.push_back(placement.lent(id));
      lends_to_.push_back(lends_to(id, site));
    }
    for (const PlacedComponent& placed : placement.components)
      for (std::size_t d = 0; placed.need->phase == Phase::Decode && d < site.devices.size(); ++d)
        decodes_.push_back(decoding_time(placed, d, site));
    decodes_.resize(site.devices.size());
    if (!decoder) return;
    for (std::size_t d = 0; d < site.devices.size(); ++d) decoders_.push_back(copies_on(*decoder, site, {d}));
  }

  CostTable table() const {
    const std::size_t variants = decoders_.empty() ? 1 : 2;
    CostTable out(chain_.units(), site_.devices.size(), variants);
    for (std::size_t d = 0; d < site_.devices.size(); ++d)
      for (std::size_t variant = 0; variant < variants; ++variant) fill(out, d, variant);
    return out;
  }

  double hand_over() const { return hand_over_time(chain_, site_); }

  /// Bytes that main memory can take, beside what lies there and what it has taken already.
  double most_lent() const {
    const auto donor = std::ranges::find(site_.donors, DeviceId::cpu(), &DeviceRoom::id);
    if (!site_.streams || donor == site_.donors.end()) return 0.0;
    const auto own = std::ranges::find(site_.devices, DeviceId::cpu(), &DeviceRoom::id);
    const PhaseBytes lent = placement_.lent(donor->id);
    PhaseBytes taken{};
    for (const Phase phase : kPhases) taken[phase] = donor->driver_bytes + lent[phase];
    if (own != site_.devices.end()) {
      Load load = placement_.load(static_cast<std::size_t>(own - site_.devices.begin()), own->id);
      load.used = true;
      taken = load.peak(*own, lent);
    }
    return std::max(0.0,
                    static_cast<double>(donor->limit_bytes) - static_cast<double>(need_in_its_phases(need_, taken)));
  }

 private:
  void fill(CostTable& table, std::size_t d, std::size_t variant) const {
    const DeviceRoom& room = site_.devices[d];
    Load beside = beside_[d];
    double decodes = decodes_[d];
    if (variant > 0) {
      const PlacedComponent& decoder = decoders_[d];
      beside.add(*decoder.need, decoder.chain, decoder.runs[d], decoder.bytes(d), decoder.coding_bytes[d],
                 placement_.in_flight, room.id);
      decodes += decoding_time(decoder, d, site_);
    }
    const std::size_t used = site_.most_devices == 0 ? site_.devices.size() : site_.most_devices;
    const double fastest = fastest_of(site_.devices), limit = static_cast<double>(room.limit_bytes);
    for (int first = 0; first <= chain_.units(); ++first) {
      for (int last = first; last <= chain_.units(); ++last) {
        const UnitRange run{first, last};
        RunCosts& costs = table.at(d, variant, run);
        const auto peak_with = [&](std::uint64_t held) {
          Load load = beside;
          load.add(need_, chain_, run, held, 0, placement_.in_flight, room.id);
          return load.peak(room, lends_[d]);
        };
        PhaseBytes peak = peak_with(chain_.held(run));
        StageWork work{.blocks = chain_.time(run), .decodes = decodes * chain_.time()};
        const std::uint64_t needed = need_in_its_phases(need_, peak);
        if (needed > room.limit_bytes && lends_to_[d] && !run.empty()) {
          const LoanChoices::Size loan = site_.loans.of(need_, chain_, run).that_frees(needed - room.limit_bytes);
          peak = peak_with(chain_.held(run) - loan.bytes + loan.ring);
          work.streamed = loan.bytes;
        }
        costs.lacks = std::max(0.0, static_cast<double>(highest(peak)) - limit);
        if (is_barred(d) && !run.empty()) costs.lacks = std::max(costs.lacks, kNever);
        costs.lent = static_cast<double>(work.streamed);
        costs.time = stage_time(work, chain_, room.speed, fastest, site_.together(used));
        const auto bytes = static_cast<double>(chain_.bytes(run));
        costs.ties = {chain_.time(run) * costs.time, bytes * bytes / std::max(1.0, room_for_weights(room)),
                      variant > 0 ? -room_for_weights(room) : 0.0, variant > 0 ? static_cast<double>(d) : 0.0};
      }
    }
  }

  /// Main memory that takes other devices' blocks runs none.
  bool is_barred(std::size_t d) const {
    return site_.streams && need_.phase == Phase::Sample && site_.devices.size() > 1 &&
           site_.devices[d].id == DeviceId::cpu() &&
           std::ranges::find(site_.donors, DeviceId::cpu(), &DeviceRoom::id) != site_.donors.end();
  }

  static constexpr double kNever = 0x1p62;  // bytes

  const Placement& placement_;
  const ComponentNeed& need_;
  const Site& site_;
  Chain chain_;
  std::vector<Load> beside_;  ///< by device, as are the others
  std::vector<PhaseBytes> lends_;
  std::vector<bool> lends_to_;
  std::vector<double> decodes_;  ///< parts of a pass
  std::vector<PlacedComponent> decoders_;
};

/// Puts the runs of a split into the placement.
void add_split(Placement& placement, const ComponentNeed& need, const Split& split, const Site& site) {
  placement.components.push_back(nowhere(need, site));
  PlacedComponent& placed = placement.components.back();
  placed.runs = split.runs;
  for (std::size_t d = 0; d < site.devices.size(); ++d) lend(placement, placed, d, site);
}

}  // namespace

void add_diffusion(Placement& placement, const ComponentNeed& diffusion, const ComponentNeed* decoder,
                   const Site& site) {
  const Cutter cutter(placement, diffusion, decoder, site);
  const CostTable table = cutter.table();
  const bool flows = placement.in_flight.sampling.passes > 0;
  const SplitLimits limits{.most_devices = site.most_devices,
                           .most_lent = cutter.most_lent(),
                           .passes = static_cast<double>(placement.in_flight.sampling.passes + 1),
                           .hand_over = cutter.hand_over()};
  const Split split = site.cut == Cut::Quick ? quick_split(table, limits)
                      : site.cut == Cut::Thrifty
                          ? thrifty_split(table, limits)
                          : even_split(table, flows ? SplitBy::TimeThenLent : SplitBy::LentThenTime, limits);
  if (decoder) placement.components.push_back(copies_on(*decoder, site, {split.second}));
  add_split(placement, diffusion, split, site);
}

void add_encoder(Placement& placement, const ComponentNeed& encoder, const Site& site) {
  const CostTable table = Cutter(placement, encoder, nullptr, site).table();
  add_split(placement, encoder, even_split(table, SplitBy::LentThenTime, {}), site);
}

}  // namespace mgpu
