#pragma once

#include "core/family.h"
#include "core/weights.h"
#include "vae/codec.h"

namespace mgpu {

// An autoencoder of whichever kind, on one device, for the codec. `vae` is the part that `weights` are of, `format` the
// diffusion model's: tiny autoencoders code scaled latents. The tensors live as long as what is returned. Throws Error
// naming file and tensor.

Decoding load_decoding(const Part& vae, const Weights& weights, const LatentFormat& format);
Encoding load_encoding(const Part& vae, const Weights& weights, const LatentFormat& format);

}  // namespace mgpu
