#pragma once

#include <cstddef>

#include "shard/placement.h"

namespace mgpu {

// How long a job is predicted to take. All times are relative: 1 is a block of average work on a device of speed 1.

/// The time that a pass takes on a device: of its blocks and of its part of the decodes, beside which the blocks that
/// it streams are copied, once for all passes that go together. `used`: devices that run blocks of the diffusion model.
double stage_time(const Placement& placement, const PlacedComponent& diffusion, std::size_t device,
                  const PlacementContext& context, std::size_t used);

/// The same from its parts: `blocks` and `decodes` of relative work, and bytes that are streamed.
struct StageWork {
  double blocks = 0.0, decodes = 0.0;
  std::uint64_t streamed = 0;
};
double stage_time(const StageWork& work, const Chain& chain, double speed, double fastest, std::uint64_t together);

/// The work of the decodes that a device does, for each pass, as part of a pass.
double decoding_time(const PlacedComponent& decoder, std::size_t device, const PlacementContext& context);

/// What each device beyond the first adds to a pass: it is handed on once more, and comes back from further away.
double hand_over_time(const Chain& chain, const PlacementContext& context);

/// The time of the job for each of its passes. The slowest device holds up all of them; and passes that are too few to
/// keep all devices at work go through one device after another: then the devices' times add up.
double job_time(const Placement& placement, const PlacementContext& context);

/// What reading anew what serves only before the steps makes of it.
double time_factor(bool keeps_precomputed, const std::vector<ComponentNeed>& components);

double fastest_of(const std::vector<DeviceRoom>& devices);

}  // namespace mgpu
