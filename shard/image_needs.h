#pragma once

#include <cstdint>

#include "core/model_set.h"
#include "shard/plan.h"

namespace mgpu {

/// What encoding an init image of that many pixels asks of memory: the autoencoder's encoder, in the encode phase. It
/// takes its turn after the text encoders and leaves with the phase.
ComponentNeed image_encoder_need(const Part& vae, at::ScalarType dtype, std::int64_t pixels);

}  // namespace mgpu
