#pragma once

#include "core/family.h"
#include "core/need.h"
#include "vae/vae_sizes.h"

namespace mgpu {

// What AutoencoderModel asks, of the convolutional autoencoder.

ComponentNeed vae_decoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture);
ComponentNeed vae_encoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture);
double vae_decode_time(const VaeSizes& sizes, const LargestPicture& picture);

}  // namespace mgpu
