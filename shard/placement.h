#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "shard/chain.h"
#include "shard/plan.h"

namespace mgpu {

/// What of the diffusion model's work may lie on a device at once.
struct InFlight {
  /// Passes beside the one that it runs, and texts that runs are told.
  struct Most {
    std::uint64_t passes = 0, texts = 0;
  };
  Most sampling, decoding;
};

/// Of a device that takes pass after pass: one run, which has ended before its pictures are decoded.
InFlight one_by_one(const PlacementRequest& request);
/// So many passes at once, of one run or several, and pictures are decoded among those of others.
InFlight in_flight(const PlacementRequest& request, std::int64_t passes);

/// By what a component is cut where every device has room.
enum class Cut : std::uint8_t {
  Even,     ///< the slowest device takes the least time; of one pass at a time, least is streamed before that
  Quick,    ///< a job of few passes at once takes the least time: devices then work in turn, and their times add up
  Thrifty,  ///< the fewest bytes are streamed in all
};

/// What main memory may take of rows of blocks, worked out once for many placements of the same components.
class OffloadCache {
 public:
  const OffloadChoices& of(const ComponentNeed& need, const Chain& chain, ChainRange run);

 private:
  std::map<const ComponentNeed*, std::vector<std::unique_ptr<OffloadChoices>>> choices_;  ///< by first and last
};

/// What a placement stands on, and which means of saving memory it may use.
struct PlacementContext {
  const std::vector<DeviceRoom>& devices;
  const std::vector<DeviceRoom>& donors;
  OffloadCache& offloads;
  bool keeps_precomputed = true;  ///< as Plan's
  bool streams = false;  ///< blocks that find no room are lent to `cpu`, which then runs none of the diffusion model
  InFlight in_flight = {};
  std::size_t decode_mode = 0;                ///< of coding pictures, in ComponentNeed's order
  std::vector<std::size_t> vae_devices = {};  ///< devices that do it together, unless `way` is the first
  Cut cut = Cut::Even;
  std::size_t most_devices = 0;  ///< that the diffusion model is cut over

  /// Passes that share the copy of a streamed block where the diffusion model lies on so many devices.
  std::uint64_t together(std::size_t used) const {
    return in_flight.sampling.passes / std::max<std::size_t>(used, 1) + 1;
  }
};

/// A component, the run of it that each device computes, and what of that others keep.
struct PlacedComponent {
  const ComponentNeed* need = nullptr;
  Chain chain;
  std::vector<ChainRange> runs;
  std::vector<OffloadedBlocks> offloads;
  const DecodeNeed* mode = nullptr;              ///< the autoencoder's way
  std::vector<std::uint64_t> decode_bytes = {};  ///< that it asks of each device

  /// Bytes that lie on a device, those of a ring included.
  std::uint64_t bytes(std::size_t device) const {
    return chain.held(runs[device]) - offloads[device].bytes + offloads[device].ring;
  }
};

/// What lies on one device.
struct Load {
  PhaseBytes resident{}, transient{};
  bool used = false;

  /// Adds a run of a component; `held`: bytes of its weights there, those of a ring included.
  void add(const ComponentNeed& need, const Chain& chain, ChainRange run, std::uint64_t held,
           std::uint64_t decode_bytes, const InFlight& in_flight, const DeviceId& device);
  /// All 0 where nothing lies on it and it lends nothing.
  PhaseBytes peak(const DeviceRoom& room, const PhaseBytes& kept_for_others) const;
};

/// Where every component lies.
struct Placement {
  std::vector<PlacedComponent> components;
  InFlight in_flight = {};

  Load load(std::size_t device, const DeviceId& id) const;
  /// Predicted peaks of a device. Encoders take turns and leave with their phase; the diffusion model and the
  /// autoencoder are loaded together and stay, since the next picture's sampling follows a decode. All 0 where nothing
  /// lies on it.
  PhaseBytes peak(std::size_t device, const DeviceRoom& room) const;
  /// Bytes that a device keeps for others in each phase.
  PhaseBytes offloaded(const DeviceId& donor) const;
};

/// What the limit leaves beside the driver's bytes; below 0 where it does not even hold those.
double room_for_weights(const DeviceRoom& room);

/// Everything on one of the devices.
Placement place_on(const std::vector<ComponentNeed>& components, const PlacementContext& context, std::size_t device);

/// One component as its allocation says. Throws PlacementError.
PlacedComponent place_by_allocation(const ComponentNeed& need, const AllocationString& allocation,
                                    const PlacementContext& context);

/// A component that lies nowhere yet, and one that lies whole on each of these devices.
PlacedComponent nowhere(const ComponentNeed& need, const PlacementContext& context);
PlacedComponent copies_on(const ComponentNeed& need, const PlacementContext& context,
                          const std::vector<std::size_t>& devices);

/// Bytes that a device lacks in its worst phase; the most of any device.
double lacking(const Placement& placement, std::size_t device, const DeviceRoom& room);
double lacking(const Placement& placement, const PlacementContext& context);

/// The most that lies on a device while a component does.
std::uint64_t need_in_its_phases(const ComponentNeed& component, const PhaseBytes& peak);

/// Whether main memory may take blocks of a device.
bool can_offload(const DeviceId& device, const PlacementContext& context);
/// Lends what a device lacks of a component of the placement, if that helps.
void offload_lacking(Placement& placement, PlacedComponent& placed, std::size_t device,
                     const PlacementContext& context);

/// Each component where its allocation says, else where it is best: see make_plan(). Throws PlacementError.
Placement place_over(const std::vector<ComponentNeed>& components, const PlacementContext& context,
                     const std::map<std::string, AllocationString>& allocations);

}  // namespace mgpu
