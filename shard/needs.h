#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/model_set.h"
#include "shard/plan.h"

namespace mgpu {

/// The types that a job's components compute in.
struct ComputeDtypes {
  at::ScalarType unet = at::kFloat;
  at::ScalarType vae = at::kFloat;
  std::optional<at::ScalarType> encoders;  ///< absent: weights as stored; their activations are fp32 in any case
};

/// The most that a job's pictures ask for.
struct LargestPicture {
  std::int64_t width = 0;  ///< in pixels
  std::int64_t height = 0;
  std::int64_t text_tokens = 256;  ///< of the longest prompt, as the diffusion model is told of it
  std::int64_t clip_tokens = 77;   ///< of the longest prompt in CLIP's chunks
  std::int64_t levels = 1;         ///< noise levels at which a run evaluates the model
  std::int64_t texts = 1;          ///< conditionings of a picture, each a pass a level at least
  std::int64_t batch = 1;          ///< pictures of a run
  std::int64_t prompts = 1;        ///< different ones of the whole job
  Tiling tiling = {};              ///< where pictures are decoded in tiles ...
  bool tiling_is_told = false;     ///< ... and may not be in smaller ones
};

/// What a job's components ask of memory, from headers alone. Activations are counted tensor by tensor at each
/// component's widest point; the comments in needs.cpp name it.
std::vector<ComponentNeed> component_needs(const ModelSet& models, const ComputeDtypes& dtypes,
                                           const LargestPicture& picture);

}  // namespace mgpu
