#include "vae/load_coder.h"

#include <ATen/ATen.h>

#include <memory>

#include "vae/autoencoder.h"
#include "vae/tiny_autoencoder.h"

namespace mgpu {

Decoding load_decoding(const Part& vae, const Weights& weights, const LatentFormat& format) {
  if (vae.is_tiny_vae()) {
    const auto decoder = std::make_shared<const TinyDecoder>(vae.tiny_vae(), weights);
    return [decoder, format](const at::Tensor& z) {
      return decoder->forward((z - format.shift) * format.scale).sub_(0.5).mul_(2.0);
    };
  }
  const auto decoder = std::make_shared<const Decoder>(vae.vae(), weights);
  return [decoder](const at::Tensor& z) { return decoder->forward(z); };
}

Encoding load_encoding(const Part& vae, const Weights& weights, const LatentFormat& format) {
  if (vae.is_tiny_vae()) {
    const auto encoder = std::make_shared<const TinyEncoder>(vae.tiny_vae(), weights);
    return [encoder, format](const at::Tensor& image) {
      const at::Tensor latent = encoder->forward((image + 1) / 2).to(at::kFloat);
      constexpr double kNoSpread = -30.0;  // the least logarithm of a variance
      return LatentDistribution{latent / format.scale + format.shift, at::full_like(latent, kNoSpread)};
    };
  }
  const auto encoder = std::make_shared<const Encoder>(vae.vae(), weights);
  return [encoder](const at::Tensor& image) { return encoder->forward(image); };
}

}  // namespace mgpu
