#include "shard/needs.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace mgpu {
namespace {

constexpr std::uint64_t kFp32 = 4;
constexpr std::uint64_t kWorkspace = std::uint64_t{64} << 20;  // cuBLAS and cuDNN, for every component

/// Bytes of the part's tensors whose names begin so, under its prefix, once loaded.
std::uint64_t bytes_below(const Part& part, std::string_view level, at::ScalarType dtype) {
  Part below = part;
  below.prefix += level;
  return loaded_bytes(below, dtype);
}

/// CLIP and T5 compute in fp32: beside the weights lies one linear layer's weight, widened, and a block's activations.
std::uint64_t encoder_activation(std::uint64_t tokens, std::uint64_t hidden, std::uint64_t mlp, std::uint64_t heads) {
  const std::uint64_t widened = hidden * mlp;
  const std::uint64_t block = tokens * (6 * hidden + 3 * mlp) + 2 * heads * tokens * tokens;
  return (widened + block) * kFp32;
}

/// A single block's widest point is before its last product: the state, q, k, v, attention's output, the packed
/// projections and the last product's input.
std::uint64_t flux_activation(const FluxSizes& sizes, std::uint64_t tokens, std::uint64_t width) {
  const auto hidden = static_cast<std::uint64_t>(sizes.hidden), mlp = static_cast<std::uint64_t>(sizes.mlp);
  return tokens * (9 * hidden + 2 * mlp + hidden) * width;
}

/// The decoder's widest point is the first residual block at full resolution: its input and that normalised, with the
/// channels of the level below, and four tensors of its own; a quarter more for the convolutions' workspace.
std::uint64_t decode_activation(const VaeSizes& sizes, std::uint64_t pixels, std::uint64_t width) {
  const auto channels = [&](std::size_t level) {
    return static_cast<std::uint64_t>(sizes.channels[std::min(level, sizes.channels.size() - 1)]);
  };
  return pixels * (2 * channels(1) + 4 * channels(0)) * width * 5 / 4;
}

ComponentNeed encoder(const char* name, const Part& part, const ComputeDtypes& dtypes, int layers,
                      std::uint64_t activation) {
  const at::ScalarType dtype = dtypes.encoders.value_or(stored_type(part));
  const std::string_view level = part.row->role == Role::T5 ? "encoder.block." : "text_model.encoder.layers.";
  return {name,
          Phase::Encode,
          {{"layer", layers, bytes_below(part, level, dtype)}},
          loaded_bytes(part, dtype),
          activation + kWorkspace};
}

}  // namespace

std::vector<ComponentNeed> component_needs(const ModelSet& models, const ComputeDtypes& dtypes,
                                           const LargestPicture& picture) {
  const auto size = [](auto value) { return static_cast<std::uint64_t>(value); };
  const FluxSizes& flux = models.diffusion.flux();
  const ClipSizes& clip = models.clip_l.clip();
  const T5Sizes& t5 = models.t5xxl.t5();
  const VaeSizes& vae = models.vae.vae();
  const std::uint64_t pixels = size(picture.width * picture.height), text = size(picture.text_tokens);
  const std::uint64_t tokens = text + pixels / 256;  // 8 pixels a latent value, 2 latent values a patch

  std::vector<ComponentNeed> out;
  out.push_back(encoder("clip_l", models.clip_l, dtypes, clip.layers,
                        encoder_activation(size(clip.positions), size(clip.hidden), size(clip.mlp), size(clip.heads))));
  out.push_back(encoder("t5xxl", models.t5xxl, dtypes, t5.layers,
                        encoder_activation(text, size(t5.hidden), size(t5.mlp), size(t5.heads))));
  out.push_back({"unet",
                 Phase::Sample,
                 {{"double", flux.depth, bytes_below(models.diffusion, "double_blocks.", dtypes.unet)},
                  {"single", flux.depth_single, bytes_below(models.diffusion, "single_blocks.", dtypes.unet)}},
                 loaded_bytes(models.diffusion, dtypes.unet),
                 flux_activation(flux, tokens, c10::elementSize(dtypes.unet)) + kWorkspace});
  out.push_back({"vae",
                 Phase::Decode,
                 {{"level", static_cast<int>(vae.channels.size()), bytes_below(models.vae, "decoder.", dtypes.vae)}},
                 bytes_below(models.vae, "decoder.", dtypes.vae),
                 decode_activation(vae, pixels, c10::elementSize(dtypes.vae)) + kWorkspace});
  return out;
}

}  // namespace mgpu
