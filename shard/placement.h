#pragma once

#include <map>
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

/// Where every component lies.
struct Placement {
  std::vector<PlacedComponent> components;
  std::int64_t under_way = 1;  ///< evaluations of the diffusion model, at most, at once

  /// Predicted peaks of a device. Encoders take turns and leave with their phase; the diffusion model and the
  /// autoencoder are loaded together and stay, since the next picture's sampling follows a decode. All 0 where nothing
  /// lies on it.
  PhaseBytes peak(std::size_t device, const DeviceRoom& room) const;
};

/// What the limit leaves beside the driver's bytes; below 0 where it does not even hold those.
double room_for_weights(const DeviceRoom& room);

/// Everything on one of the devices.
Placement place_on(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
                   std::size_t device);

/// One component as its allocation says. Throws PlacementError.
PlacedComponent place_as_told(const ComponentNeed& need, const AllocationString& allocation,
                              const std::vector<DeviceRoom>& devices);

/// Each component where the request's allocation says, else where it is best: see make_plan(). Throws PlacementError.
Placement place_over(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
                     const PlacementRequest& request);

}  // namespace mgpu
