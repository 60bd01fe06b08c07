#pragma once

#include <cstdint>
#include <vector>

namespace mgpu {

class PartShapes;

/// Sizes of a convolutional autoencoder (original names).
struct VaeSizes {
  int latent_channels = 0;
  std::vector<int> channels;  ///< of each level, the full resolution first
  int residual_blocks = 0;    ///< a level of the encoder; the decoder has one more
  bool encoder = false;       ///< the file holds the encoder too
  bool quant = false;         ///< 1x1 convolutions between latent and coders (Stable Diffusion 1, 2 and XL)

  /// Pixels a side that one latent value stands for.
  std::int64_t factor() const { return std::int64_t{1} << (channels.size() - 1); }
};

/// Takes the sizes from a few tensors, then asks for every other tensor of the part with the shape that follows. Throws
/// Error naming file and tensor.
VaeSizes read_vae_sizes(PartShapes& shapes);

}  // namespace mgpu
