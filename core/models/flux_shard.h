#pragma once

#include <memory>

#include "core/models/diffusion_model.h"
#include "core/models/flux_sizes.h"
#include "core/models/held_blocks.h"
#include "core/weights.h"

namespace mgpu {

/// A device's blocks of Flux. Its modulation is computed for all steps of a run as it begins; where the weights for
/// that do not stay, for the next texts as well. A GPU rehearses.
std::unique_ptr<DiffusionShard> load_flux_shard(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held,
                                                const WarmUpShape& warm_up_shape);

}  // namespace mgpu
