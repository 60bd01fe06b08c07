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

/// The largest picture of a job, in pixels, the longest of its prompts, in T5 tokens, and the most steps.
struct LargestPicture {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::int64_t text_tokens = 256;
  std::int64_t steps = 1;
};

/// What a job's components ask of memory, from headers alone. Activations are counted tensor by tensor at each
/// component's widest point; the comments in needs.cpp name it.
std::vector<ComponentNeed> component_needs(const ModelSet& models, const ComputeDtypes& dtypes,
                                           const LargestPicture& picture);

}  // namespace mgpu
