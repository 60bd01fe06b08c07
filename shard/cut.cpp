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
  Cutter(const Placement& placement, const ComponentNeed& need, const ComponentNeed* decoder,
         const PlacementContext& context)
      : placement_(placement), need_(need), context_(context), chain_(need, context.keeps_precomputed) {
    for (std::size_t d = 0; d < context.devices.size(); ++d) {
      const DeviceId& id = context.devices[d].id;
      beside_.push_back(placement.load(d, id));
      kept_for_others_.push_back(placement.offloaded(id));
      can_offload_.push_back(can_offload(id, context));
    }
    for (const PlacedComponent& placed : placement.components)
      for (std::size_t d = 0; placed.need->phase == Phase::Decode && d < context.devices.size(); ++d)
        decodes_.push_back(decoding_time(placed, d, context));
    decodes_.resize(context.devices.size());
    if (!decoder) return;
    for (std::size_t d = 0; d < context.devices.size(); ++d) decoders_.push_back(copies_on(*decoder, context, {d}));
  }

  CostTable table() const {
    const std::size_t variants = decoders_.empty() ? 1 : 2;
    CostTable out(chain_.units(), context_.devices.size(), variants);
    for (std::size_t d = 0; d < context_.devices.size(); ++d)
      for (std::size_t variant = 0; variant < variants; ++variant) fill(out, d, variant);
    return out;
  }

  double hand_over() const { return hand_over_time(chain_, context_); }

  /// Bytes that main memory can take, beside what lies there and what it has taken already.
  double most_offloaded() const {
    const auto donor = std::ranges::find(context_.donors, DeviceId::cpu(), &DeviceRoom::id);
    if (!context_.streams || donor == context_.donors.end()) return 0.0;
    const auto own = std::ranges::find(context_.devices, DeviceId::cpu(), &DeviceRoom::id);
    const PhaseBytes offloaded = placement_.offloaded(donor->id);
    PhaseBytes taken{};
    for (const Phase phase : kPhases) taken[phase] = donor->driver_bytes + offloaded[phase];
    if (own != context_.devices.end()) {
      Load load = placement_.load(static_cast<std::size_t>(own - context_.devices.begin()), own->id);
      load.used = true;
      taken = load.peak(*own, offloaded);
    }
    return std::max(0.0,
                    static_cast<double>(donor->limit_bytes) - static_cast<double>(need_in_its_phases(need_, taken)));
  }

 private:
  void fill(CostTable& table, std::size_t d, std::size_t variant) const {
    const DeviceRoom& room = context_.devices[d];
    Load beside = beside_[d];
    double decodes = decodes_[d];
    if (variant > 0) {
      const PlacedComponent& decoder = decoders_[d];
      beside.add(*decoder.need, decoder.chain, decoder.runs[d], decoder.bytes(d), decoder.decode_bytes[d],
                 placement_.in_flight, room.id);
      decodes += decoding_time(decoder, d, context_);
    }
    const std::size_t used = context_.most_devices == 0 ? context_.devices.size() : context_.most_devices;
    const double fastest = fastest_of(context_.devices), limit = static_cast<double>(room.limit_bytes);
    for (int first = 0; first <= chain_.units(); ++first) {
      for (int last = first; last <= chain_.units(); ++last) {
        const ChainRange run{first, last};
        RunCosts& costs = table.at(d, variant, run);
        const auto peak_with = [&](std::uint64_t held) {
          Load load = beside;
          load.add(need_, chain_, run, held, 0, placement_.in_flight, room.id);
          return load.peak(room, kept_for_others_[d]);
        };
        PhaseBytes peak = peak_with(chain_.held(run));
        StageWork work{.blocks = chain_.time(run), .decodes = decodes * chain_.time()};
        const std::uint64_t needed = need_in_its_phases(need_, peak);
        if (needed > room.limit_bytes && can_offload_[d] && !run.empty()) {
          const OffloadChoices::Size offload =
              context_.offloads.of(need_, chain_, run).that_frees(needed - room.limit_bytes);
          peak = peak_with(chain_.held(run) - offload.bytes + offload.ring);
          work.streamed = offload.bytes;
        }
        costs.lacks = std::max(0.0, static_cast<double>(highest(peak)) - limit);
        if (is_barred(d) && !run.empty()) costs.lacks = std::max(costs.lacks, kNever);
        costs.offloaded = static_cast<double>(work.streamed);
        costs.time = stage_time(work, chain_, room.speed, fastest, context_.together(used));
        const auto bytes = static_cast<double>(chain_.bytes(run));
        costs.ties = {chain_.time(run) * costs.time, bytes * bytes / std::max(1.0, room_for_weights(room)),
                      variant > 0 ? -room_for_weights(room) : 0.0, variant > 0 ? static_cast<double>(d) : 0.0};
      }
    }
  }

  /// Main memory that takes other devices' blocks runs none.
  bool is_barred(std::size_t d) const {
    return context_.streams && need_.phase == Phase::Sample && context_.devices.size() > 1 &&
           context_.devices[d].id == DeviceId::cpu() &&
           std::ranges::find(context_.donors, DeviceId::cpu(), &DeviceRoom::id) != context_.donors.end();
  }

  static constexpr double kNever = 0x1p62;  // bytes

  const Placement& placement_;
  const ComponentNeed& need_;
  const PlacementContext& context_;
  Chain chain_;
  std::vector<Load> beside_;  ///< by device, as are the others
  std::vector<PhaseBytes> kept_for_others_;
  std::vector<bool> can_offload_;
  std::vector<double> decodes_;  ///< parts of a pass
  std::vector<PlacedComponent> decoders_;
};

/// Puts the runs of a split into the placement.
void add_split(Placement& placement, const ComponentNeed& need, const Split& split, const PlacementContext& context) {
  placement.components.push_back(nowhere(need, context));
  PlacedComponent& placed = placement.components.back();
  placed.runs = split.runs;
  for (std::size_t d = 0; d < context.devices.size(); ++d) offload_lacking(placement, placed, d, context);
}

}  // namespace

void add_diffusion(Placement& placement, const ComponentNeed& diffusion, const ComponentNeed* decoder,
                   const PlacementContext& context) {
  const Cutter cutter(placement, diffusion, decoder, context);
  const CostTable table = cutter.table();
  const bool flows = placement.in_flight.sampling.passes > 0;
  const SplitLimits limits{.most_devices = context.most_devices,
                           .most_offloaded = cutter.most_offloaded(),
                           .passes = static_cast<double>(placement.in_flight.sampling.passes + 1),
                           .hand_over = cutter.hand_over()};
  const Split split = context.cut == Cut::Quick ? quick_split(table, limits)
                      : context.cut == Cut::Thrifty
                          ? thrifty_split(table, limits)
                          : even_split(table, flows ? SplitBy::TimeThenOffloaded : SplitBy::OffloadedThenTime, limits);
  if (decoder) placement.components.push_back(copies_on(*decoder, context, {split.second}));
  add_split(placement, diffusion, split, context);
}

void add_encoder(Placement& placement, const ComponentNeed& encoder, const PlacementContext& context) {
  const CostTable table = Cutter(placement, encoder, nullptr, context).table();
  add_split(placement, encoder, even_split(table, SplitBy::OffloadedThenTime, {}), context);
}

}  // namespace mgpu
