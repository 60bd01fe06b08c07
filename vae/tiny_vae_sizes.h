#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mgpu {

class PartShapes;

/// Sizes of a tiny autoencoder: TAESD and its relatives, plain convolutions without norms or attention.
struct TinyVaeSizes {
  /// One of its two coders, whose layers are numbered as they run (vae/tiny_layers.h).
  struct Coder {
    std::string layers;       ///< what their names begin with: "decoder.layers.", or "" in a file of one coder
    int first = 0;            ///< number of the first layer that has tensors
    int channels = 0;         ///< of every layer but the outermost
    std::vector<int> blocks;  ///< residual blocks of each level, in the order in which they run; empty: no such coder
  };
  int latent_channels = 0;
  Coder decoder;
  Coder encoder;  ///< as many levels

  /// Pixels a side that one latent value stands for.
  std::int64_t factor() const { return std::int64_t{1} << (decoder.blocks.size() - 1); }
};

/// Takes the sizes from a few tensors, then asks for every other tensor of the part with the shape that follows. Throws
/// Error naming file and tensor.
TinyVaeSizes read_tiny_vae_sizes(PartShapes& shapes);

}  // namespace mgpu
