#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "core/model_set.h"
#include "core/models/unet_model.h"
#include "core/models/unet_sizes.h"
#include "core/need_parts.h"

namespace mgpu {
namespace {

// Layers that serve only what is computed before the steps: the text's keys and values of cross-attention.
constexpr std::array<std::string_view, 2> kPrecomputed = {".attn2.to_k.", ".attn2.to_v."};

std::size_t size(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

/// Positions of the result of each down block.
std::vector<std::uint64_t> unet_positions(const UNetSizes& sizes, const LargestPicture& picture, std::int64_t factor) {
  std::vector<std::uint64_t> out;
  std::uint64_t rows = static_cast<std::uint64_t>(picture.height / factor),
                columns = static_cast<std::uint64_t>(picture.width / factor);
  for (const UNetBlockSizes& down : sizes.down) {
    if (down.resamples) rows = (rows + 1) / 2, columns = (columns + 1) / 2;
    out.push_back(rows * columns);
  }
  return out;
}

/// Values a position of a UNet's block at its widest: in the residual block its input, that normalised and that again
/// for the convolution, with the result (or input and four tensors of the result's width around the second
/// convolution); in the transformer its feed-forward (the image, the tokens before and after attention, those
/// normalised, both halves of GEGLU's input, GELU of one of them and their product, each four times as wide as the
/// tokens).
std::uint64_t unet_block_values(std::uint64_t in, std::uint64_t out, int depth) {
  const std::uint64_t residual = std::max(3 * in + out, in + 4 * out), feed_forward = 4 * out + 16 * out;
  return depth > 0 ? std::max(residual, feed_forward) : residual;
}

/// A UNet's widest point is in the middle or on the way up, where skips wait: they count. SDXL's is the first
/// feed-forward of its second level.
std::uint64_t unet_activation(const UNetSizes& sizes, const std::vector<std::uint64_t>& positions,
                              std::uint64_t width) {
  std::vector<std::uint64_t> waiting{0};  // values of the first i skips
  for (std::size_t i = 0; i < sizes.down.size(); ++i)
    waiting.push_back(waiting.back() + positions[i] * size(sizes.down[i].out));
  const std::uint64_t channels = size(sizes.down.back().out);
  std::uint64_t most = waiting.back() + positions.back() * unet_block_values(channels, channels, sizes.depth_middle);
  for (std::size_t i = 0; i < sizes.up.size(); ++i) {
    const UNetBlockSizes& up = sizes.up[i];
    const std::size_t skip = size(sizes.skip_of(static_cast<int>(i)));
    most = std::max(most,
                    waiting[skip] + positions[skip] * unet_block_values(size(up.in + up.skip), size(up.out), up.depth));
    // The image, that at the next size, and its convolution.
    if (up.resamples) most = std::max(most, waiting[skip] + size(up.out) * (positions[skip] + 2 * positions[skip - 1]));
  }
  return most * width;
}

/// What an evaluation that waits for a device keeps: its skips, and the image at the first level.
std::uint64_t unet_waiting(const UNetSizes& sizes, const std::vector<std::uint64_t>& positions, std::uint64_t width) {
  std::uint64_t values = positions.front() * size(sizes.down.front().out);
  for (std::size_t i = 0; i < sizes.down.size(); ++i) values += positions[i] * size(sizes.down[i].out);
  return values * width;
}

/// On a CPU the same, but that many threads' attention may take more where skips wait for all ways up: the image, the
/// tokens, those normalised, q, k, v and what comes of them.
std::uint64_t unet_activation_on_cpu(const UNetSizes& sizes, const std::vector<std::uint64_t>& positions,
                                     std::uint64_t width) {
  constexpr std::uint64_t kWidestHead = 160;
  std::uint64_t tokens = 0;
  for (std::size_t i = 0; i < sizes.down.size(); ++i)
    if (sizes.down[i].depth > 0) tokens = std::max(tokens, 8 * positions[i] * size(sizes.down[i].out));
  return std::max(unet_activation(sizes, positions, width),
                  unet_waiting(sizes, positions, width) + tokens * width + attention_scratch(kWidestHead));
}

/// Sets what a UNet's blocks keep: of a pass the skips, of a text the keys and values of each transformer block.
/// Returns the largest image that goes from block to block.
std::uint64_t set_kept(std::vector<BlockNeed>& blocks, const UNetSizes& sizes,
                       const std::vector<std::uint64_t>& positions, std::int64_t text_tokens, std::uint64_t width) {
  const auto text = [&](int depth, int channels) {
    return 2 * size(text_tokens) * size(depth) * size(channels) * width;
  };
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < sizes.down.size(); ++i) {
    const UNetBlockSizes &down = sizes.down[i], &up = sizes.up[i];
    blocks.front().bytes_per_pass.push_back(positions[i] * size(down.out) * width);
    blocks.front().bytes_per_prompt.push_back(text(down.depth, down.out));
    blocks.back().bytes_per_prompt.push_back(text(up.depth, up.out));
    const std::size_t skip = size(sizes.skip_of(static_cast<int>(i)));
    const std::size_t at = up.resamples ? skip - 1 : skip;
    most = std::max({most, positions[i] * size(down.out), positions[at] * size(up.out)});
  }
  if (blocks.size() == 3) blocks[1].bytes_per_prompt = {text(sizes.depth_middle, sizes.down.back().out)};
  return most * width;
}

/// Multiplications of a transformer block: projections of self- and cross-attention, the feed-forward (GEGLU to four
/// times the width), and both attentions themselves.
double transformer_work(double positions, double width, double text) {
  return positions * width * (18 * width + 2 * (positions + text));
}

/// Sets the times of the blocks: down, middle if there is one, up.
void set_unet_work(std::vector<BlockNeed>& blocks, const UNetSizes& sizes, const std::vector<std::uint64_t>& positions,
                   std::int64_t text_tokens) {
  const auto text = static_cast<double>(text_tokens);
  const auto work = [&](std::size_t at, double in, double out, int residuals, int depth) {
    const auto p = static_cast<double>(positions[at]);
    return residuals * residual_work(p, in, out) + depth * transformer_work(p, out, text);
  };
  for (std::size_t i = 0; i < sizes.down.size(); ++i) {
    const UNetBlockSizes& down = sizes.down[i];
    const bool convolves = i == 0 || down.resamples;
    blocks.front().times.push_back(convolves ? 9.0 * static_cast<double>(positions[i]) * down.in * down.out
                                             : work(i, down.in, down.out, 1, down.depth));
    const UNetBlockSizes& up = sizes.up[i];
    const std::size_t skip = static_cast<std::size_t>(sizes.skip_of(static_cast<int>(i)));
    blocks.back().times.push_back(work(skip, up.in + up.skip, up.out, 1, up.depth));
    if (up.resamples) blocks.back().times.back() += 9.0 * static_cast<double>(positions[skip - 1]) * up.out * up.out;
  }
  const double channels = sizes.down.back().out;
  if (sizes.middle_residuals > 0)
    blocks[1].times = {work(positions.size() - 1, channels, channels, sizes.middle_residuals, sizes.depth_middle)};
}

}  // namespace

ComponentNeed UNetModel::need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const {
  const auto& unet = part.as<UNetSizes>();
  const LatentFormat& format = part.row->training->latent;
  const std::vector<std::uint64_t> positions = unet_positions(unet, picture, format.factor);
  const int depth = static_cast<int>(unet.down.size());
  std::vector<BlockNeed> blocks{blocks_below("down", depth, part, "input_blocks.", dtype, kPrecomputed)};
  if (unet.middle_residuals > 0) blocks.push_back({"middle", 1, bytes_below(part, "middle_block.", dtype)});
  blocks.push_back(blocks_below("up", depth, part, "output_blocks.", dtype, kPrecomputed));
  set_unet_work(blocks, unet, positions, picture.text_tokens);
  const std::uint64_t width = c10::elementSize(dtype), latents = latent_bytes(format, picture);
  const std::uint64_t pass_bytes = set_kept(blocks, unet, positions, picture.text_tokens, width);
  return {.name = "unet",
          .phase = Phase::Sample,
          .blocks = std::move(blocks),
          .bytes = loaded_bytes(part, dtype),
          .activation = unet_activation(unet, positions, width) + kWorkspace,
          .precompute_activation = largest_precomputed(part, dtype, kPrecomputed) + kWorkspace,
          .pass_bytes = pass_bytes,
          .head = bytes_below(part, "out.", dtype),
          .skip_paired = true,
          .latent_device_bytes = size(picture.batch) * latents,
          .latents = latents,
          .activation_on_cpu = std::max(loading_bytes(part, dtype), unet_activation_on_cpu(unet, positions, width)),
          .precompute_activation_on_cpu = largest_precomputed(part, dtype, kPrecomputed)};
}

}  // namespace mgpu
