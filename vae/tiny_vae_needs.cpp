#include "vae/tiny_vae_needs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/model_set.h"
#include "core/need_parts.h"
#include "vae/tiny_vae_sizes.h"

namespace mgpu {
namespace {

constexpr std::uint64_t kImageBytes = 3 * kFp32;  // of a pixel
// Up to so many values LibTorch convolves on a CPU by a matrix product of each one's 3x3 surroundings, having
// rearranged the image.
constexpr std::uint64_t kSmallImage = 20480;

/// What loading adds for a moment on a CPU: a weight beside itself in the wanted type, rearranged.
std::uint64_t loading_of(const Part& vae, const TinyVaeSizes::Coder& coder, at::ScalarType dtype) {
  std::uint64_t most = 0;
  for (const auto& [name, info] : vae.tensors())
    if (name.starts_with(vae.prefix + coder.layers))
      most = std::max({most, loaded_bytes(vae, name, info, dtype), info.bytes()});
  return most;
}

/// Either coder is widest in a residual block at full resolution: its input, a convolution's input and its output; a
/// quarter more for cuDNN's. `beside` are bytes a pixel that lie there meanwhile.
ComponentNeed need_of(const Part& vae, const TinyVaeSizes::Coder& coder, at::ScalarType dtype,
                      const LargestPicture& picture, std::uint64_t beside) {
  const auto pixels = static_cast<std::uint64_t>(picture.width * picture.height);
  const std::uint64_t values = pixels * static_cast<std::uint64_t>(coder.channels), width = c10::elementSize(dtype);
  const std::uint64_t block = 3 * values * width, surroundings = 10 * std::min(values, kSmallImage) * width;
  ComponentNeed need;
  need.name = "vae";
  need.bytes = bytes_below(vae, coder.layers, dtype);
  need.activation = kWorkspace;
  need.indivisible = true;
  need.activation_on_cpu = loading_of(vae, coder, dtype);
  need.modes = {{.mode = DecodeMode::Whole,
                 .on_gpu = {.moments = {{.fixed = block * 5 / 4 + pixels * beside}}},
                 .on_cpu = {.moments = {{.fixed = block + surroundings + pixels * beside}}}}};
  return need;
}

}  // namespace

ComponentNeed tiny_decoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture) {
  const auto& sizes = vae.as<TinyVaeSizes>();
  // Four of the latent in fp32, of which a position is 64 pixels: as it came, unscaled, scaled, limited.
  const std::uint64_t latents = 4 * static_cast<std::uint64_t>(sizes.latent_channels) * kFp32 / 64;
  ComponentNeed need = need_of(vae, sizes.decoder, dtype, picture, latents);
  need.phase = Phase::Decode;
  need.blocks = {{"level", static_cast<int>(sizes.decoder.blocks.size()), need.bytes}};
  return need;
}

ComponentNeed tiny_encoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture) {
  const auto& sizes = vae.as<TinyVaeSizes>();
  // The image as it was read, in -1..1 and in 0..1.
  ComponentNeed need = need_of(vae, sizes.encoder, dtype, picture, 3 * kImageBytes);
  need.phase = Phase::Encode;
  need.blocks = {{"encoder level", static_cast<int>(sizes.encoder.blocks.size()), need.bytes}};
  return need;
}

}  // namespace mgpu
