#pragma once

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

/// What a placement stands on, and which means of saving memory it may use.
struct Site {
  const std::vector<DeviceRoom>& devices;
  const std::vector<DeviceRoom>& donors;
  bool keeps_ahead = true;  ///< as Plan's
  bool streams = false;     ///< blocks that find no room are lent to `cpu`
  InFlight in_flight = {};
  std::size_t way = 0;                   ///< of coding pictures, in ComponentNeed's order
  std::vector<std::size_t> coders = {};  ///< devices that do it together, unless `way` is the first
};

/// A component, the run of it that each device computes, and what of that others keep.
struct PlacedComponent {
  const ComponentNeed* need = nullptr;
  Chain chain;
  std::vector<Run> runs;
  std::vector<Loan> loans;
  const CodingNeed* coding = nullptr;            ///< the autoencoder's way
  std::vector<std::uint64_t> coding_bytes = {};  ///< that it asks of each device

  /// Bytes that lie on a device, those of a ring included.
  std::uint64_t bytes(std::size_t device) const {
    return chain.held(runs[device]) - loans[device].bytes + loans[device].ring;
  }
};

/// Where every component lies.
struct Placement {
  std::vector<PlacedComponent> components;
  InFlight in_flight = {};

  /// Predicted peaks of a device. Encoders take turns and leave with their phase; the diffusion model and the
  /// autoencoder are loaded together and stay, since the next picture's sampling follows a decode. All 0 where nothing
  /// lies on it.
  PhaseBytes peak(std::size_t device, const DeviceRoom& room) const;
  /// Bytes that a device keeps for others in each phase.
  PhaseBytes lent(const DeviceId& donor) const;
};

/// The relative time that a pass takes a device, decoding included: of its blocks, or of bringing those that are
/// streamed where that takes longer.
double pass_time(const Placement& placement, const PlacedComponent& diffusion, std::size_t device, const Site& site);

/// What the limit leaves beside the driver's bytes; below 0 where it does not even hold those.
double room_for_weights(const DeviceRoom& room);

/// Everything on one of the devices.
Placement place_on(const std::vector<ComponentNeed>& components, const Site& site, std::size_t device);

/// One component as its allocation says. Throws PlacementError.
PlacedComponent place_as_told(const ComponentNeed& need, const AllocationString& allocation, const Site& site);

/// Each component where its allocation says, else where it is best: see make_plan(). Throws PlacementError.
Placement place_over(const std::vector<ComponentNeed>& components, const Site& site,
                     const std::map<std::string, AllocationString>& allocations);

}  // namespace mgpu
