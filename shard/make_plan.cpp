#include "shard/make_plan.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <utility>

#include "core/error.h"
#include "shard/chain.h"
#include "shard/job_time.h"
#include "shard/plan_with.h"

namespace mgpu {
namespace {

// Differences below this are rounding.
constexpr double kSame = 1e-9;

/// Passes at once, were all evaluations to go in so many waves: the last wave keeps devices as busy as the first.
std::int64_t in_waves(std::int64_t waves, std::int64_t evaluations) {
  return (evaluations + waves - 1) / waves;
}

/// Passes on their way at once.
struct WantedPasses {
  /// So many keep all devices at work: while each computes with one, another is on its way to it, or in a sampler's
  /// hands between two steps. A UNet goes through each device twice, on its way down and up. A device alone takes one
  /// after another.
  std::int64_t passes = 1;
  /// A streamed block serves all passes that wait for it: with more of them its copy takes less of each one's time.
  std::int64_t of_streams = 1;
};

WantedPasses wanted_passes(std::size_t devices, const PlacementRequest& request) {
  const auto computing = static_cast<std::int64_t>(devices);
  const std::int64_t all = request.evaluations, least = 2 * computing;
  const std::int64_t most = std::max(4 * computing, request.passes_a_run);
  return {.passes = computing == 1 ? 1 : in_waves(std::max<std::int64_t>(all / least, 1), all),
          .of_streams = in_waves((all + most - 1) / most, all)};
}

/// DecodeModes of coding pictures that may be taken, in order: those whose pictures are the same, then tiles.
struct DecodeModes {
  std::vector<std::size_t> exact, tiled;
};

DecodeModes decode_modes_of(const std::vector<ComponentNeed>& components, const PlacementRequest& request) {
  const auto decoder = std::ranges::find(components, Phase::Decode, &ComponentNeed::phase);
  if (decoder == components.end() || decoder->modes.empty()) return {.exact = {0}, .tiled = {}};
  DecodeModes out;
  for (std::size_t i = 0; i < decoder->modes.size(); ++i) {
    const DecodeMode decode_mode = decoder->modes[i].mode;
    // Who asks for a picture whole or by several devices gets the same slab by slab.
    const bool is_asked = request.decode_mode.value_or(decode_mode) == decode_mode ||
                          (decode_mode == DecodeMode::Slabs && request.decode_mode != DecodeMode::Tiled);
    if (is_asked) (decode_mode == DecodeMode::Tiled ? out.tiled : out.exact).push_back(i);
  }
  if (out.exact.empty() && out.tiled.empty()) out.exact = {0};  // an autoencoder of one level has no tiles
  return out;
}

/// Whether an allocation says how many bytes a device gives at most.
bool names_bytes(const PlacementRequest& request) {
  using Amount = AllocationAmount::Kind;
  return std::ranges::any_of(request.allocation, [](const auto& component) {
    return std::ranges::any_of(component.second.entries, [](const AllocationEntry& entry) {
      return entry.amount.kind == Amount::Bytes || entry.amount.kind == Amount::Fraction;
    });
  });
}

/// Whether a plan has blocks of the diffusion model to place, and may leave devices without any.
bool may_choose_devices(const PlacementRequest& request) {
  return request.mode == PlacementRequest::Mode::Auto && !request.allocation.contains("unet");
}

/// A plan, and what it was made with.
struct Candidate {
  Plan plan;
  MemoryOptions options;
};

/// Looks for the devices and the means with which a job fits and takes the least time.
class Search {
 public:
  Search(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
         const PlacementRequest& request)
      : inputs_{components, devices, request, offloads_},
        decode_modes_(decode_modes_of(components, request)),
        vae_device_sets_(vae_device_sets()),
        is_single_(devices.size() == 1 || request.mode == PlacementRequest::Mode::Single) {
    for (const DeviceRoom& room : devices) speeds_.push_back(room.speed);
    std::ranges::sort(speeds_, std::greater{});
    for (const ComponentNeed& need : components) {
      if (need.phase == Phase::Sample) work_ = Chain(need).time();
      if (need.phase == Phase::Decode) decoder_ = &need;
    }
  }

  /// The fastest plan, or that which lacks least.
  Plan best() {
    for (const std::vector<std::size_t>* group : {&decode_modes_.exact, &decode_modes_.tiled}) {
      if (const auto found = best_of(*group)) return explained(*found);
      if (!thriftiest().plan.fits()) break;
    }
    return explained(thriftiest());
  }

  /// Whether there is a plan that fits.
  bool fits() { return thriftiest().plan.fits(); }

 private:
  // ---- Which devices ----

  /// Sets of devices that code pictures together: all that may, then without those that have least memory, since each
  /// keeps a copy of the autoencoder; last none, where one device does it.
  std::vector<std::vector<std::size_t>> vae_device_sets() const {
    std::vector<std::vector<std::size_t>> out = vae_device_sets_of(inputs_.devices, inputs_.request);
    if (!inputs_.request.vae_devices.empty()) return out;
    const auto room = [&](std::size_t d) { return room_for_weights(inputs_.devices[d]); };
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::vector<std::size_t> fewer = out[i];
      const double least = room(*std::ranges::min_element(fewer, {}, room));
      std::erase_if(fewer, [&](std::size_t d) { return room(d) == least; });
      if (fewer.size() > 1) out.insert(out.begin() + static_cast<std::ptrdiff_t>(i) + 1, fewer);
    }
    out.emplace_back();
    return out;
  }

  WantedPasses wanted(const MemoryOptions& options) const {
    const std::size_t devices = options.alone              ? 1
                                : options.most_devices > 0 ? options.most_devices
                                                           : inputs_.devices.size();
    return wanted_passes(is_single_ ? 1 : devices, inputs_.request);
  }

  /// The ways of choosing devices that are tried with some means, the preferred ones first among equally fast ones.
  std::vector<MemoryOptions> choices(const MemoryOptions& options) const {
    const std::size_t devices = inputs_.devices.size();
    MemoryOptions even = options;
    if (is_single_) {
      if (devices == 1 && !inputs_.request.allocation.empty()) return {even};
      std::vector<MemoryOptions> out{even};
      out.front().alone = devices == 1 ? 0 : device_of_single(options, inputs_);
      for (std::size_t d = 0; d < devices && inputs_.request.allocation.empty(); ++d)
        if (d != out.front().alone) out.emplace_back(even).alone = d;
      return out;
    }
    if (!may_choose_devices(inputs_.request)) return {even};
    std::vector<MemoryOptions> out;
    const bool is_free = inputs_.request.allocation.empty() && inputs_.request.decode_mode != DecodeMode::Parallel;
    if (is_free && inputs_.request.evaluations == 1) {
      MemoryOptions keeping = options;
      keeping.streams = false;
      if (const SingleDevice single = best_single_device(keeping, inputs_); single.lacking == 0)
        out.emplace_back(options).alone = single.device;
    }
    for (std::size_t most = devices; most > 0; --most) {
      even.most_devices = most;
      even.passes = passes_over(most, options.passes);
      // Fewer devices are worth a try where more passes then share what is streamed, or where fewer are on their way.
      const auto is_tried = [&](const MemoryOptions& tried) { return !tried.alone && flow_of(tried) == flow_of(even); };
      if (std::ranges::any_of(out, is_tried)) continue;
      if (!options.streams) even.most_devices = 0;
      even.cut = Cut::Even;
      out.push_back(even);
      if (even.passes > 1 && even.passes >= static_cast<std::int64_t>(most)) continue;
      even.cut = Cut::Quick;
      out.push_back(even);
    }
    for (std::size_t d = 0; is_free && d < devices; ++d) {
      MemoryOptions alone = options;
      alone.alone = d;
      alone.passes = passes_over(1, options.passes);
      out.push_back(alone);
    }
    return out;
  }

  /// Passes at once, and how many of them share a copy; the same of more passes where blocks are streamed.
  std::array<std::int64_t, 4> flow_of(const MemoryOptions& options) const {
    if (!options.streams) return {options.passes};
    const auto devices = static_cast<std::int64_t>(options.most_devices);
    const std::int64_t more = wanted(options).of_streams;
    return {options.passes, (options.passes - 1) / devices, more, (more - 1) / devices};
  }

  /// As many passes as are wanted of so many devices, halved as often as those of all devices were.
  std::int64_t passes_over(std::size_t devices, std::int64_t passes) const {
    std::int64_t all = wanted_passes(inputs_.devices.size(), inputs_.request).passes;
    std::int64_t own = wanted_passes(devices, inputs_.request).passes;
    for (; all > passes && own > 1; all /= 2) own /= 2;
    return own;
  }

  // ---- With which means ----

  /// Each saves memory, and time is lost, where those before it do not: everything kept on its device; nothing kept
  /// ahead; fewer passes at once; blocks streamed.
  std::vector<MemoryOptions> means_of_saving() const {
    const std::int64_t most = wanted({}).passes;
    std::vector<MemoryOptions> out{{.keeps_precomputed = true, .streams = false, .passes = most}};
    for (std::int64_t passes = most; passes > 0; passes /= 2) out.push_back({false, false, passes});
    out.push_back({false, true, most});
    if (most > 1) out.push_back({false, true, 1});
    return out;
  }

  /// With more passes where blocks are streamed and there is room for them.
  Candidate with(const MemoryOptions& options) const {
    Candidate out{plan_with(options, inputs_), options};
    const WantedPasses most = wanted(options);
    if (options.passes != most.passes || most.of_streams <= most.passes) return out;
    if (!options.streams && !streams(out.plan)) return out;
    MemoryOptions shared = options;
    shared.passes = most.of_streams;
    Candidate more{plan_with(shared, inputs_), shared};
    const double enough = out.plan.pass_time * (streams(out.plan) ? 1 + kSame : 1 - kSame);
    return more.plan.fits() && (!out.plan.fits() || more.plan.pass_time <= enough) ? more : out;
  }

  /// No plan of these means takes less time.
  double least_time(const MemoryOptions& options) const {
    const std::size_t most = options.alone              ? 1
                             : options.most_devices > 0 ? options.most_devices
                                                        : inputs_.devices.size();
    double speed = 0.0, all_speeds = 0.0;
    for (std::size_t i = 0; i < speeds_.size(); ++i) {
      speed += i < most ? speeds_[i] : 0.0;
      all_speeds += speeds_[i];
    }
    const double fastest = options.alone ? inputs_.devices[*options.alone].speed : speeds_.front();
    const bool may_share = options.streams && options.passes == wanted(options).passes;
    const auto passes =
        static_cast<double>(may_share ? std::max(options.passes, wanted(options).of_streams) : options.passes);
    const double all = work_ * (1 + decodes_of(options));
    const double flowing = options.alone ? all / fastest : std::max(work_ / speed, all / all_speeds);
    return std::max(flowing, all / fastest / passes) * time_factor(options.keeps_precomputed, inputs_.components);
  }

  /// The time of the decodes on one device, for each pass, as part of a pass.
  double decodes_of(const MemoryOptions& options) const {
    if (!decoder_) return 0.0;
    const std::vector<DecodeNeed>& modes = decoder_->modes;
    return decoder_->time_a_pass *
           (modes.empty() ? 1.0 : modes[std::min(options.decode_mode, modes.size() - 1)].slowness);
  }

  /// The fastest plan that fits; none where the first means fail and not even those that take least memory do.
  std::optional<Candidate> best_of(const std::vector<std::size_t>& modes) {
    std::optional<Candidate> best;
    bool is_first = true;
    for (MemoryOptions options : means_of_saving()) {
      if (!is_first && !best && !thriftiest().plan.fits()) return std::nullopt;
      is_first = false;
      // A way that takes longer may fit where the diffusion model then runs faster: all are tried.
      for (const std::size_t decode_mode : modes) {
        options.decode_mode = decode_mode;
        improve(best, options);
      }
    }
    return best;
  }

  /// Tries some means on all choices of devices, for a plan that fits and is faster.
  void improve(std::optional<Candidate>& best, MemoryOptions options) {
    for (const std::vector<std::size_t>& vae_devices : vae_device_sets_) {
      if (best && vae_devices.empty() && inputs_.request.decode_mode == DecodeMode::Parallel) break;
      options.vae_devices = vae_devices;
      for (const MemoryOptions& choice : choices(options)) {
        if (best && least_time(choice) >= best->plan.pass_time * (1 - kSame)) continue;
        std::optional<Candidate> candidate = attempt(choice);
        if (!candidate || !candidate->plan.fits()) continue;
        if (!best || candidate->plan.pass_time < best->plan.pass_time * (1 - kSame)) best = std::move(candidate);
      }
      if (options.decode_mode == 0) break;
    }
  }

  /// Of what everything is kept for, an allocation may leave no room: it is asked again with less.
  std::optional<Candidate> attempt(const MemoryOptions& options) const {
    if (!options.keeps_precomputed) return with(options);
    try {
      Candidate out = with(options);
      if (streams(out.plan) && names_bytes(inputs_.request)) return std::nullopt;
      return out;
    } catch (const PlacementError&) {
      return std::nullopt;
    }
  }

  // ---- The least memory ----

  /// The way of coding that takes the least memory of each of these devices, which need not be the last: small pictures
  /// have no use for tiles.
  std::size_t thriftiest_mode(const std::vector<std::size_t>& together) const {
    const auto decoder = std::ranges::find(inputs_.components, Phase::Decode, &ComponentNeed::phase);
    if (decoder == inputs_.components.end() || decoder->modes.empty()) return 0;
    const auto vae_devices = static_cast<double>(std::max<std::size_t>(together.size(), 1));
    const auto bytes = [&](std::size_t decode_mode) {
      const DecodeNeed& need = decoder->modes[decode_mode];
      const double share = need.mode == DecodeMode::Whole ? 1.0 : 1.0 / vae_devices;
      return (inputs_.devices.front().id.is_cuda() ? need.on_gpu : need.on_cpu).bytes(share);
    };
    std::vector<std::size_t> all = decode_modes_.exact;
    all.insert(all.end(), decode_modes_.tiled.begin(), decode_modes_.tiled.end());
    return *std::ranges::min_element(all, {}, bytes);
  }

  /// That which takes the least memory of all, if that fits, else that which lacks least. Of small models a ring, or
  /// what is computed ahead, takes more than it saves.
  const Candidate& thriftiest() {
    if (!thriftiest_) thriftiest_ = find_thriftiest();
    return *thriftiest_;
  }

  Candidate find_thriftiest() const {
    std::optional<Candidate> out;
    for (const std::vector<std::size_t>& vae_devices : vae_device_sets_) {
      MemoryOptions options{.passes = 1, .decode_mode = thriftiest_mode(vae_devices), .vae_devices = vae_devices};
      for (const bool keeps : {false, true})
        for (const bool streams : {true, false}) {
          options.keeps_precomputed = keeps, options.streams = streams;
          std::vector<MemoryOptions> tried{is_single_ ? choices(options).front() : options};
          if (streams && !is_single_ && may_choose_devices(inputs_.request))
            tried.emplace_back(options).cut = Cut::Thrifty;
          for (const MemoryOptions& choice : tried) {
            Candidate candidate{plan_with(choice, inputs_), choice};
            if (candidate.plan.fits()) return candidate;
            if (!out || lacks_less(candidate.plan, out->plan)) out = std::move(candidate);
          }
        }
    }
    return std::move(*out);
  }

  static bool lacks_less(const Plan& a, const Plan& b) {
    // First those whose donors have enough memory, then by the bytes that are missing.
    const auto rank = [](const Plan& plan) {
      const bool donors_lack = std::ranges::any_of(plan.donors, [&](const PlannedDonor& donor) {
        return std::ranges::find(plan.shortfalls, donor.room.id, &Shortfall::device) != plan.shortfalls.end();
      });
      return std::pair(donors_lack, plan.lacking_bytes());
    };
    return rank(a) < rank(b);
  }

  Plan explained(const Candidate& candidate) const {
    Plan out = candidate.plan;
    out.mode_reason = reason_of(out, candidate.options, inputs_, wanted(candidate.options).passes);
    return out;
  }

  OffloadCache offloads_;
  PlanInputs inputs_;
  DecodeModes decode_modes_;
  std::vector<std::vector<std::size_t>> vae_device_sets_;
  bool is_single_;
  std::vector<double> speeds_;  ///< the highest first
  double work_ = 0.0;
  const ComponentNeed* decoder_ = nullptr;
  std::optional<Candidate> thriftiest_;
};

}  // namespace

Plan make_plan(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
               const PlacementRequest& request) {
  MGPU_CHECK(!devices.empty(), "a plan needs a device");
  return Search(components, devices, request).best();
}

bool can_fit(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
             const PlacementRequest& request) {
  return Search(components, devices, request).fits();
}

std::optional<std::uint64_t> missing_memory(const std::vector<ComponentNeed>& components,
                                            std::vector<DeviceRoom> devices, const PlacementRequest& request,
                                            const std::vector<DeviceId>& on, std::uint64_t least) {
  constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kMost = std::uint64_t{1} << 22;  // 4 TiB
  const std::vector<DeviceRoom> before = devices;
  const auto is_enough = [&](std::uint64_t mib) {
    for (std::size_t d = 0; d < devices.size(); ++d)
      if (std::ranges::find(on, devices[d].id) != on.end()) devices[d].limit_bytes = before[d].limit_bytes + mib * kMiB;
    return can_fit(components, devices, request);
  };
  std::uint64_t too_little = least / kMiB, enough = too_little + 1;
  while (!is_enough(enough)) {
    if (enough >= kMost) return std::nullopt;
    too_little = std::exchange(enough, 2 * enough);
  }
  while (enough - too_little > 1) {
    const std::uint64_t middle = too_little + (enough - too_little) / 2;
    (is_enough(middle) ? enough : too_little) = middle;
  }
  return enough;
}

}  // namespace mgpu
