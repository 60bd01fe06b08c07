#pragma once

#include "cli/job/fields.h"

namespace mgpu {

// The keys of a job file that say where and in which types it computes: see state_job().

/// `dtype`: one for all, or for each component.
Type<ComputeTypes> compute_types();
/// gpu_ids, vram_limit, mode, allocation and the like.
void state_placement(Section& section, PlacementOptions& placement);
/// `decode`.
Type<DecodeOptions> decode_options();

}  // namespace mgpu
