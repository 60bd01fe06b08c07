#pragma once

#include <string>
#include <vector>

#include "shard/chain.h"
#include "shard/plan.h"

namespace mgpu {

/// A component and the run of it that each device holds.
struct PlacedComponent {
  const ComponentNeed* need = nullptr;
  Chain chain;
  std::vector<Run> runs;
};

/// What of the diffusion model's work may lie on a device at once.
struct InFlight {
  /// Passes beside the one that it runs, and texts that runs are told.
  struct Most {
    std::uint64_t passes = 0, texts = 0;
  };
  Most sampling, decoding;
};

/// On a device alone: one run, pass by pass, and it has ended before its pictures are decoded.
InFlight in_flight_alone(const PlacementRequest& request);
/// Over several devices: so many passes, and pictures are decoded among those of others.
InFlight in_flight_over(const PlacementRequest& request, std::int64_t passes);

/// Where every component lies.
struct Placement {
  std::vector<PlacedComponent> components;
  InFlight in_flight = {};

  /// Predicted peaks of a device. Encoders take turns and leave with their phase; the diffusion model and the
  /// autoencoder are loaded together and stay, since the next picture's sampling follows a decode. All 0 where nothing
  /// lies on it.
  PhaseBytes peak(std::size_t device, const DeviceRoom& room) const;
};

/// What the limit leaves beside the driver's bytes; below 0 where it does not even hold those.
double room_for_weights(const DeviceRoom& room);

/// Everything on one of the devices.
Placement place_on(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
                   const PlacementRequest& request, std::size_t device);

/// One component as its allocation says. Throws PlacementError.
PlacedComponent place_as_told(const ComponentNeed& need, const AllocationString& allocation,
                              const std::vector<DeviceRoom>& devices);

/// Each component where its allocation says, else where it is best with so many passes on their way: see make_plan().
/// Throws PlacementError.
Placement place_over(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
                     const PlacementRequest& request, std::int64_t passes);

}  // namespace mgpu
