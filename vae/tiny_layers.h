#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vae/tiny_vae_sizes.h"

namespace mgpu {

/// A layer of a tiny autoencoder's coder, of those that have tensors.
struct TinyLayer {
  enum class Kind : std::uint8_t {
    Conv,     ///< 3x3
    Block,    ///< relu(x + conv(relu(conv(relu(conv(x)))))), 3x3 each
    Enlarge,  ///< twice the size by repeating pixels, then 3x3 without bias
    Halve,    ///< half the size, rounded up: 3x3 of stride 2 without bias
  };
  Kind kind = Kind::Conv;
  std::string name;  ///< of its tensors under the part's prefix: "decoder.layers.2"
  int in = 0;        ///< channels
  int out = 0;

  bool bias() const { return kind == Kind::Conv || kind == Kind::Block; }
};

/// The name of a block's convolution 0, 1 or 2: beside and between them nn.Sequential counts the rectifiers.
std::string convolution_of(const TinyLayer& block, int number);

/// The layers of https://github.com/madebyollin/taesd (taesd.py), in the order in which they run. Latents go through
/// 3 tanh(x / 3) before the decoder, and its first convolution is rectified.
std::vector<TinyLayer> decoder_layers(const TinyVaeSizes& sizes);
std::vector<TinyLayer> encoder_layers(const TinyVaeSizes& sizes);

}  // namespace mgpu
