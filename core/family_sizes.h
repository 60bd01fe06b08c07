#pragma once

#include <string>

#include "core/family.h"
#include "core/part_shapes.h"

namespace mgpu {

/// The readers of FamilyRow::read, one a model text. Each takes its sizes from a few tensors, then asks for every other
/// tensor of the part with the shape that follows. Throws Error naming file and tensor.
Sizes read_flux_sizes(PartShapes& shapes);
Sizes read_unet_sizes(PartShapes& shapes);
Sizes read_clip_sizes(PartShapes& shapes);
Sizes read_open_clip_sizes(PartShapes& shapes);
Sizes read_t5_sizes(PartShapes& shapes);
Sizes read_vae_sizes(PartShapes& shapes);
Sizes read_tiny_vae_sizes(PartShapes& shapes);

}  // namespace mgpu
