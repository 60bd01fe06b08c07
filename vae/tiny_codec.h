#pragma once

#include "core/training.h"
#include "core/weights.h"
#include "vae/codec.h"
#include "vae/tiny_vae_sizes.h"

namespace mgpu {

// A tiny autoencoder on one device, for the codec, which knows unscaled latents: `format` is the diffusion model's. The
// tensors live as long as what is returned. Throws Error naming file and tensor where one is missing.

Decoding tiny_decoding(const TinyVaeSizes& sizes, const Weights& weights, const LatentFormat& format);
Encoding tiny_encoding(const TinyVaeSizes& sizes, const Weights& weights, const LatentFormat& format);

}  // namespace mgpu
