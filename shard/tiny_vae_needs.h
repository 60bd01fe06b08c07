#pragma once

#include <cstdint>

#include "core/model_set.h"
#include "shard/plan.h"

namespace mgpu {

/// What a tiny autoencoder asks of memory for a picture of that many pixels: its decoder in the decode phase, its
/// encoder, where the file holds one, in the encode phase.
ComponentNeed tiny_decoder_need(const Part& vae, at::ScalarType dtype, std::int64_t pixels);
ComponentNeed tiny_encoder_need(const Part& vae, at::ScalarType dtype, std::int64_t pixels);

}  // namespace mgpu
