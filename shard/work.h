#pragma once

#include <cstdint>
#include <vector>

#include "shard/needs.h"

namespace mgpu {

// How long the parts of a job's models take, relative to each other: the multiplications that they make.

/// Sets the times of Flux's blocks, for so many tokens of text and image. A double block weighs 2.4 times a single one
/// and multiplies as much: each of its matrices serves some of the tokens.
void set_flux_work(std::vector<BlockNeed>& blocks, const FluxSizes& sizes, std::uint64_t tokens);
/// Sets the times of a UNet's blocks: down, middle if there is one, up.
void set_unet_work(std::vector<BlockNeed>& blocks, const UNetSizes& sizes, const LargestPicture& picture);

/// Of all of a component's blocks.
double work_of(const ComponentNeed& component);

/// Of decoding a picture. 0 for a tiny autoencoder.
double decode_work(const Part& vae, const LargestPicture& picture);

}  // namespace mgpu
