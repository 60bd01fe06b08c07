#pragma once

#include "cli/job/job.h"

namespace mgpu {

/// Fills the paths of the job's files: beside the job file, then by bare name in model_paths (folders, or a ComfyUI
/// extra_model_paths.yaml). Throws Error at the key of the first that is missing, listing where it looked. Finds the
/// folders of textual inversions in the same places: those called `embeddings` that are there. Of tokenizers that are
/// neither named nor installed the path stays empty: the family may have no use for them.
void resolve_files(Job& job);

}  // namespace mgpu
