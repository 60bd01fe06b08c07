#include "shard/tiny_vae_needs.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace mgpu {
namespace {

constexpr std::uint64_t kWorkspace = std::uint64_t{64} << 20;  // cuDNN's
constexpr std::uint64_t kImageBytes = 3 * 4;                   // of a pixel in fp32

/// Bytes of a coder's tensors once loaded, and the most that loading adds for a moment: a convolution's weight beside
/// itself rearranged.
struct CoderBytes {
  std::uint64_t all = 0;
  std::uint64_t loading = 0;
};

CoderBytes bytes_of(const Part& vae, const TinyVaeSizes::Coder& coder, at::ScalarType dtype) {
  CoderBytes out;
  for (const auto& [name, info] : vae.file->tensors()) {
    if (!name.starts_with(vae.prefix + coder.layers)) continue;
    const std::uint64_t bytes = loaded_bytes(info, dtype);
    out.all += bytes;
    out.loading = std::max({out.loading, bytes, info.bytes()});
  }
  return out;
}

/// Either coder is widest in a residual block at full resolution: its input, a convolution's input and its output.
/// `beside` are bytes a pixel that lie there meanwhile.
ComponentNeed need_of(const Part& vae, const TinyVaeSizes::Coder& coder, at::ScalarType dtype, std::int64_t pixels,
                      std::uint64_t beside) {
  const auto [bytes, loading] = bytes_of(vae, coder, dtype);
  const auto area = static_cast<std::uint64_t>(pixels);
  const std::uint64_t block = area * 3 * static_cast<std::uint64_t>(coder.channels) * c10::elementSize(dtype);
  ComponentNeed need;
  need.name = "vae";
  need.bytes = bytes;
  need.activation = block * 5 / 4 + area * beside + kWorkspace;
  need.whole = true;
  need.activation_on_cpu = block + area * beside + loading;
  return need;
}

}  // namespace

ComponentNeed tiny_decoder_need(const Part& vae, at::ScalarType dtype, std::int64_t pixels) {
  const TinyVaeSizes& sizes = vae.tiny_vae();
  // The latent as it came, scaled and limited, in fp32.
  const std::uint64_t latents = 4 * static_cast<std::uint64_t>(sizes.latent_channels) * 4 / 64;
  ComponentNeed need = need_of(vae, sizes.decoder, dtype, pixels, latents);
  need.phase = Phase::Decode;
  need.blocks = {{"level", static_cast<int>(sizes.decoder.blocks.size()), need.bytes}};
  return need;
}

ComponentNeed tiny_encoder_need(const Part& vae, at::ScalarType dtype, std::int64_t pixels) {
  const TinyVaeSizes& sizes = vae.tiny_vae();
  // The image as it was read, in -1..1 and in 0..1.
  ComponentNeed need = need_of(vae, sizes.encoder, dtype, pixels, 3 * kImageBytes);
  need.phase = Phase::Encode;
  need.blocks = {{"encoder level", static_cast<int>(sizes.encoder.blocks.size()), need.bytes}};
  return need;
}

}  // namespace mgpu
