#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/need.h"
#include "shard/plan.h"

namespace mgpu {

/// Places every component on the devices, each in its phase: an encoder whole where one device holds it, else cut; the
/// diffusion model on one device or, when that does not fit or several evaluations flow, cut so that the slowest device
/// takes the least time; the autoencoder beside it, on one device or, where that is not enough, a copy on several that
/// code pictures together. Where memory is short, what serves only before the steps does not stay on the devices; where
/// that is not enough, fewer passes are on their way at once; then blocks are streamed from `cpu`, as few as need be,
/// and more passes share what is streamed, if they fit; if all that is not enough, pictures are decoded tile by tile.
/// Of all plans that fit the one of the least pass_time is taken, over any of the devices: those that would make the
/// job slower run none of the diffusion model. A device more, more memory or more speed makes no job slower, and what
/// fits with fewer fits with more. Cuts keep the devices' order, or the allocation string's. The same arguments give
/// the same plan. A plan that does not fit is that which lacks least. Throws PlacementError.
Plan make_plan(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
               const PlacementRequest& request = {});

/// Whether make_plan() finds one that fits, in a fraction of its time.
bool can_fit(const std::vector<ComponentNeed>& components, const std::vector<DeviceRoom>& devices,
             const PlacementRequest& request = {});

/// How much more memory a job takes that does not fit: whole MiB on each of these devices, with which can_fit() is
/// true. `least`: what it takes at least. Nothing where no memory of theirs is enough.
std::optional<std::uint64_t> missing_memory(const std::vector<ComponentNeed>& components,
                                            std::vector<DeviceRoom> devices, const PlacementRequest& request,
                                            const std::vector<DeviceId>& on, std::uint64_t least);

}  // namespace mgpu
