#pragma once

#include "core/family.h"
#include "core/need.h"

namespace mgpu {

/// What a tiny autoencoder asks of memory for a job's largest picture, whole on one device, the only way there is: its
/// decoder in the decode phase, its encoder, where the file holds one, in the encode phase.
ComponentNeed tiny_decoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture);
ComponentNeed tiny_encoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture);

}  // namespace mgpu
