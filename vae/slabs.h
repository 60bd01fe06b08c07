#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <span>

#include "core/slab_layout.h"
#include "vae/autoencoder.h"
#include "vae/team.h"

namespace mgpu {

// The largest images of a coder take most of its memory. In slabs they are never there as a whole: some units of rows
// at a time go through their levels, with as many more around them as the convolutions reach. A normalisation needs the
// statistics of all rows: for each, all slabs go as far as it once more. The strips are those of a coder in bands
// (core/bands.h), and so are the bits: the same image in less memory, a few times slower.

/// As decode_in_bands(), to the bit; the last levels in slabs, of which every device of the team takes its part.
at::Tensor decode_in_slabs(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z, const Slabs& slabs,
                           const std::optional<BandRules>& rules = {});

/// As encode_in_bands(), to the bit; the first levels in slabs.
LatentDistribution encode_in_slabs(std::span<const Encoder> encoders, const Team& team, const at::Tensor& image,
                                   const Slabs& slabs, const std::optional<BandRules>& rules = {});

}  // namespace mgpu
