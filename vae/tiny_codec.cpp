#include "vae/tiny_codec.h"

#include <ATen/ATen.h>

#include <memory>

#include "vae/tiny_autoencoder.h"

namespace mgpu {

Decoding tiny_decoding(const TinyVaeSizes& sizes, const Weights& weights, const LatentFormat& format) {
  const auto decoder = std::make_shared<const TinyDecoder>(sizes, weights);
  return [decoder, format](const at::Tensor& z) {
    return decoder->forward((z - format.shift) * format.scale).sub_(0.5).mul_(2.0);
  };
}

Encoding tiny_encoding(const TinyVaeSizes& sizes, const Weights& weights, const LatentFormat& format) {
  const auto encoder = std::make_shared<const TinyEncoder>(sizes, weights);
  return [encoder, format](const at::Tensor& image) {
    const at::Tensor latent = encoder->forward((image + 1) / 2).to(at::kFloat);
    constexpr double kNoSpread = -30.0;  // the least logarithm of a variance
    return LatentDistribution{latent / format.scale + format.shift, at::full_like(latent, kNoSpread)};
  };
}

}  // namespace mgpu
