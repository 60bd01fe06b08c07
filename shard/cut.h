#pragma once

#include "shard/placement.h"

namespace mgpu {

/// Completes a placement with the diffusion model, and with the autoencoder on the device where that is best for both;
/// `decoder` may be null.
void add_diffusion(Placement& placement, const ComponentNeed& diffusion, const ComponentNeed* decoder,
                   const PlacementContext& context);
/// Completes a placement with an encoder, cut so that the devices lack least.
void add_encoder(Placement& placement, const ComponentNeed& encoder, const PlacementContext& context);

}  // namespace mgpu
