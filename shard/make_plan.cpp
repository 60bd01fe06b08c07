#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "core/error.h"
#include "shard/plan.h"
#include "shard/plan_with.h"

namespace mgpu {
namespace {

// Reading Flux's modulation anew costs some hundredths of a run's time.
constexpr double kWorthReading = 0.95;
// What is streamed takes main memory, and a link may be slower than it is taken to be.
constexpr double kWorthStreaming = 0.85;

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

/// What takes the least memory of all: one of these. Of small models a ring, or what is computed ahead, takes more than
/// it saves.
std::array<Means, 4> thriftiest_means(std::size_t way) {
  return {Means{.keeps_ahead = false, .streams = true, .passes = 1, .way = way},
          Means{.keeps_ahead = false, .streams = false, .passes = 1, .way = way},
          Means{.keeps_ahead = true, .streams = true, .passes = 1, .way = way},
          Means{.keeps_ahead = true, .streams = false, .passes = 1, .way = way}};
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

/// Looks for the means with which a job fits and takes the least time.
class Search {
 public:
  Search(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
         const PlacementRequest& request)
      : components_(components),
        devices_(devices),
        request_(request),
        wanted_(wanted_passes(devices.size(), request)),
        ways_(ways_of(components, request)) {}

  /// The fastest plan, or that which lacks least.
  Plan best() const { return evener(keeping()); }

  /// That which takes the least memory of all, if that fits, else that which lacks least.
  Plan thriftiest() const {
    std::optional<Plan> out;
    for (const Means& means : thriftiest_means(thriftiest_way())) {
      Plan plan = with(means);
      if (plan.fits()) return plan;
      out = out ? less_lacking(std::move(*out), std::move(plan)) : std::move(plan);
    }
    return std::move(*out);
  }

 private:
  Plan exactly(const Means& means) const { return plan_with(means, components_, devices_, request_, wanted_.passes); }

  /// With more passes where blocks are streamed and there is room for them.
  Plan with(const Means& means) const {
    Plan plan = exactly(means);
    const bool shares = means.passes == wanted_.passes && wanted_.of_streams > wanted_.passes && streams(plan);
    if (!shares || !plan.fits()) return plan;
    Means shared = means;
    shared.passes = wanted_.of_streams;
    Plan more = exactly(shared);
    return more.fits() ? more : plan;
  }

  /// With everything kept where it is computed, if that fits.
  std::optional<Plan> roomy(std::size_t way) const {
    try {
      Plan plan = with({true, false, wanted_.passes, way});
      if (!plan.fits() || (streams(plan) && names_bytes(request_))) return std::nullopt;
      if (request_.evaluations == 1 || plan.mode == "single" || streams(plan)) return plan;
      // With less to hold the devices may share the work more evenly.
      Plan even = with({false, false, wanted_.passes, way});
      return even.fits() && even.pass_time < kWorthReading * plan.pass_time ? even : plan;
    } catch (const PlacementError&) {  // an allocation without room for what is not kept: asked again with less
      return std::nullopt;
    }
  }

  /// The way of coding that takes the least memory of a device, which need not be the last: small pictures have no use
  /// for tiles.
  std::size_t thriftiest_way() const {
    const auto decoder = std::ranges::find(components_, Phase::Decode, &ComponentNeed::phase);
    if (decoder == components_.end() || decoder->coding.empty()) return 0;
    const auto coders = static_cast<double>(std::max<std::size_t>(coders_of(devices_, request_).size(), 1));
    const auto bytes = [&](std::size_t way) {
      const CodingNeed& need = decoder->coding[way];
      const double share = need.way == CodingWay::Whole ? 1.0 : 1.0 / coders;
      return (devices_.front().id.is_cuda() ? need.on_gpu : need.on_cpu).bytes(share);
    };
    std::vector<std::size_t> all = ways_.exact;
    all.insert(all.end(), ways_.tiled.begin(), ways_.tiled.end());
    return *std::ranges::min_element(all, {}, bytes);
  }

  /// The fastest that streams no more than it must, or that which lacks least.
  Plan keeping() const {
    for (const std::size_t way : ways_.exact)
      if (std::optional<Plan> plan = roomy(way)) return std::move(*plan);
    Plan last = thriftiest();
    if (!last.fits()) return last;
    // Where not even the way that takes the least memory fits, the others need not be tried.
    std::map<std::pair<bool, std::int64_t>, bool> hopeless;
    const auto is_hopeless = [&, least = thriftiest_way()](Means means) {
      const auto [known, is_new] = hopeless.try_emplace({means.streams, means.passes});
      means.way = least;
      if (is_new) known->second = !exactly(means).fits();
      return known->second;
    };
    for (const std::vector<std::size_t>* group : {&ways_.exact, &ways_.tiled}) {
      for (const std::size_t way : *group)
        if (std::optional<Plan> plan = group == &ways_.tiled ? roomy(way) : std::nullopt) return std::move(*plan);
      for (const Means& means : means_of_saving(*group, wanted_.passes)) {
        if (means.way != group->front() && is_hopeless(means)) continue;
        if (Plan plan = with(means); plan.fits()) return plan;
      }
    }
    return last;
  }

  /// A plan that fits with a share of the work on every device as its memory allows, or one with more on those that
  /// have little, which then stream: if all devices are busier so.
  Plan evener(Plan plan) const {
    const bool is_alone = devices_.size() == 1 || request_.mode == PlacementRequest::Mode::Single;
    // With few passes devices wait for each other, and for every copy.
    const bool flows = request_.evaluations > static_cast<std::int64_t>(devices_.size());
    if (!plan.fits() || is_alone || !flows || streams(plan)) return plan;
    for (const std::size_t way : ways_.exact.empty() ? ways_.tiled : ways_.exact) {
      Plan streaming = with({false, true, wanted_.passes, way});
      if (!streaming.fits() || streaming.coding.way != plan.coding.way) continue;
      return streaming.pass_time < kWorthStreaming * plan.pass_time ? streaming : plan;
    }
    return plan;
  }

  const std::vector<ComponentNeed>& components_;
  const std::vector<DeviceRoom>& devices_;
  const PlacementRequest& request_;
  Wanted wanted_;
  Ways ways_;
};

}  // namespace

Plan make_plan(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
               const PlacementRequest& request) {
  MGPU_CHECK(!devices.empty(), "a plan needs a device");
  return Search(components, devices, request).best();
}

bool can_fit(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
             const PlacementRequest& request) {
  return Search(components, devices, request).thriftiest().fits();
}

}  // namespace mgpu
