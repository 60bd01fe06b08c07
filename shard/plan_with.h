#pragma once

#include <cstdint>
#include <vector>

#include "shard/plan.h"

namespace mgpu {

/// The means of saving memory that a plan uses.
struct Means {
  bool keeps_ahead = true;  ///< as Plan's
  bool streams = false;     ///< blocks that find no room are lent to `cpu`
  std::int64_t passes = 1;  ///< of the diffusion model at once
  std::size_t way = 0;      ///< of coding pictures, in ComponentNeed's order
};

/// The best plan with these means, which may not fit: see make_plan(). `wanted`: passes at once, were there memory.
/// Throws PlacementError.
Plan plan_with(const Means& means, const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
               const PlacementRequest& request, std::int64_t wanted);

/// Whether blocks of the diffusion model are streamed.
bool streams(const Plan& plan);

/// Devices that may code pictures together: those that are told, else those of the fastest one's kind, which give the
/// same bits as it does.
std::vector<std::size_t> coders_of(const std::vector<DeviceRoom>& devices, const PlacementRequest& request);

}  // namespace mgpu
