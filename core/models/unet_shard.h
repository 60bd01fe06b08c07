#pragma once

#include <memory>

#include "core/family.h"
#include "core/models/diffusion_model.h"
#include "core/models/held_blocks.h"
#include "core/models/unet_sizes.h"
#include "core/weights.h"

namespace mgpu {

/// A device's blocks of a family's UNet. Each text's keys and values are computed as a run that is told it begins.
std::unique_ptr<DiffusionShard> load_unet_shard(const FamilyRow& family, const UNetSizes& sizes, const Weights& weights,
                                                const HeldBlocks& held);

}  // namespace mgpu
