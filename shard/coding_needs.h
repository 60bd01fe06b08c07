#pragma once

#include "core/model_set.h"
#include "shard/needs.h"

namespace mgpu {

/// What decoding a job's largest picture asks of memory: the autoencoder's decoder, in the decode phase, by each way in
/// the order in which they are preferred.
ComponentNeed decoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture);

/// What encoding an init image of the largest picture's size asks: the autoencoder's encoder, in the encode phase. It
/// takes its turn after the text encoders, on the decoder's devices, and leaves with the phase.
ComponentNeed image_encoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture);

}  // namespace mgpu
