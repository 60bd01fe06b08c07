#pragma once

#include <vector>

#include "core/model_set.h"
#include "core/need.h"

namespace mgpu {

/// What a job's components ask of memory, from headers alone: each component's own code says it.
std::vector<ComponentNeed> component_needs(const ModelSet& models, const ComputeDtypes& dtypes,
                                           const LargestPicture& picture);

/// What encoding an init image of the largest picture's size asks: the autoencoder's encoder, in the encode phase. It
/// takes its turn after the text encoders, on the decoder's devices, and leaves with the phase.
ComponentNeed image_encoder_need(const ModelSet& models, at::ScalarType dtype, const LargestPicture& picture);

}  // namespace mgpu
