#include "shard/work.h"

#include "shard/need_parts.h"

namespace mgpu {
namespace {

// A decode's images are wide and its channels few: its multiplications take longer than a diffusion model's (1.5 times
// Flux's, measured on an H200 at 1024x1024 and 2048x2048).
constexpr double kSlownessOfDecoding = 1.5;

// Flux's double blocks: the text's products have few rows (measured on an H200 at 1024x1024).
constexpr double kSlownessOfDoubles = 1.04;

/// Multiplications of a residual block: two 3x3 convolutions, and a 1x1 one where the channels change.
double residual_work(double positions, double in, double out) {
  return positions * out * (9 * in + 9 * out + (in == out ? 0 : in));
}

/// Multiplications of a transformer block: projections of self- and cross-attention, the feed-forward (GEGLU to four
/// times the width), and both attentions themselves.
double transformer_work(double positions, double width, double text) {
  return positions * width * (18 * width + 2 * (positions + text));
}

/// Multiplications of an attention over all positions, with its four projections.
double attention_work(double positions, double width) {
  return positions * width * (4 * width + 2 * positions);
}

}  // namespace

void set_flux_work(std::vector<BlockNeed>& blocks, const FluxSizes& sizes, std::uint64_t tokens) {
  const auto n = static_cast<double>(tokens), hidden = static_cast<double>(sizes.hidden),
             mlp = static_cast<double>(sizes.mlp);
  const double work = attention_work(n, hidden) + 2 * n * hidden * mlp;
  for (BlockNeed& kind : blocks)
    kind.times.assign(static_cast<std::size_t>(kind.count), kind.kind == "double" ? kSlownessOfDoubles * work : work);
}

void set_unet_work(std::vector<BlockNeed>& blocks, const UNetSizes& sizes, const LargestPicture& picture) {
  const std::vector<std::uint64_t> positions = unet_positions(sizes, picture);
  const auto text = static_cast<double>(picture.text_tokens);
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

double work_of(const ComponentNeed& component) {
  double out = 0.0;
  for (const BlockNeed& kind : component.blocks)
    for (int i = 0; i < kind.count; ++i) out += kind.time_of(i);
  return out;
}

double decode_work(const Part& vae, const LargestPicture& picture) {
  if (vae.is_tiny_vae()) return 0.0;
  const VaeSizes& sizes = vae.vae();
  const auto pixels = static_cast<double>(picture.width * picture.height);
  const auto factor = static_cast<double>(sizes.factor());
  double positions = pixels / (factor * factor), channels = sizes.channels.back();
  double out = attention_work(positions, channels) + 2 * residual_work(positions, channels, channels);
  for (std::size_t level = sizes.channels.size(); level-- > 0;) {
    for (int block = 0; block <= sizes.residual_blocks; ++block) {
      out += residual_work(positions, channels, sizes.channels[level]);
      channels = sizes.channels[level];
    }
    if (level > 0) positions *= 4, out += 4 * positions * channels * channels;  // four 2x2 convolutions (phase_weights)
  }
  return kSlownessOfDecoding * out;
}

}  // namespace mgpu
