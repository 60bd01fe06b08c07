#include "vae/vae_sizes.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/part_shapes.h"

namespace mgpu {
namespace {

void expect_vae_residual(PartShapes& shapes, const std::string& block, int in, int out) {
  shapes.norm(block + ".norm1", in);
  shapes.conv(block + ".conv1", out, in, 3);
  shapes.norm(block + ".norm2", out);
  shapes.conv(block + ".conv2", out, out, 3);
  if (in != out) shapes.conv(block + ".nin_shortcut", out, in, 1);
}

void expect_vae_middle(PartShapes& shapes, const std::string& name, int channels) {
  expect_vae_residual(shapes, name + ".block_1", channels, channels);
  shapes.norm(name + ".attn_1.norm", channels);
  for (const char* projection : {".attn_1.q", ".attn_1.k", ".attn_1.v", ".attn_1.proj_out"})
    shapes.conv(name + projection, channels, channels, 1);
  expect_vae_residual(shapes, name + ".block_2", channels, channels);
}

void expect_vae_decoder(PartShapes& shapes, const VaeSizes& sizes) {
  const int levels = static_cast<int>(sizes.channels.size());
  int channels = sizes.channels.back();
  if (sizes.quant) shapes.conv("post_quant_conv", sizes.latent_channels, sizes.latent_channels, 1);
  shapes.conv("decoder.conv_in", channels, sizes.latent_channels, 3);
  expect_vae_middle(shapes, "decoder.mid", channels);
  for (int level = levels - 1; level >= 0; --level) {
    const std::string name = fmt::format("decoder.up.{}.", level);
    const int out = sizes.channels[static_cast<std::size_t>(level)];
    for (int i = 0; i <= sizes.residual_blocks; ++i) {
      expect_vae_residual(shapes, fmt::format("{}block.{}", name, i), channels, out);
      channels = out;
    }
    if (level > 0) shapes.conv(name + "upsample.conv", channels, channels, 3);
  }
  shapes.norm("decoder.norm_out", channels);
  shapes.conv("decoder.conv_out", 3, channels, 3);
}

void expect_vae_encoder(PartShapes& shapes, const VaeSizes& sizes) {
  const int levels = static_cast<int>(sizes.channels.size());
  int channels = sizes.channels.front();
  shapes.conv("encoder.conv_in", channels, 3, 3);
  for (int level = 0; level < levels; ++level) {
    const std::string name = fmt::format("encoder.down.{}.", level);
    const int out = sizes.channels[static_cast<std::size_t>(level)];
    for (int i = 0; i < sizes.residual_blocks; ++i) {
      expect_vae_residual(shapes, fmt::format("{}block.{}", name, i), channels, out);
      channels = out;
    }
    if (level < levels - 1) shapes.conv(name + "downsample.conv", channels, channels, 3);
  }
  expect_vae_middle(shapes, "encoder.mid", channels);
  shapes.norm("encoder.norm_out", channels);
  const int moments = 2 * sizes.latent_channels;
  shapes.conv("encoder.conv_out", moments, channels, 3);
  if (sizes.quant) shapes.conv("quant_conv", moments, moments, 1);
}

}  // namespace

VaeSizes read_vae_sizes(PartShapes& shapes) {
  VaeSizes sizes;
  sizes.encoder =
      shapes.has_any("encoder.conv_in.") || shapes.has_any("encoder.down.") || shapes.has_any("encoder.mid.");
  sizes.quant = shapes.has_any("post_quant_conv.") || shapes.has_any("quant_conv.");
  sizes.latent_channels = shapes.take("decoder.conv_in.weight", 4, 1);
  const int levels = std::max(shapes.blocks("decoder.up."), 1);
  for (int level = 0; level < levels; ++level) {
    const std::string name = fmt::format("decoder.up.{}.block.0.conv1.weight", level);
    sizes.channels.push_back(shapes.take_multiple(name, 4, 0, kNormGroups));
  }
  // Every level has as many as most have: one that has fewer lacks them.
  std::vector<int> blocks;
  for (int level = 0; level < levels; ++level)
    blocks.push_back(shapes.blocks(fmt::format("decoder.up.{}.block.", level)));
  std::ranges::sort(blocks);
  sizes.residual_blocks = blocks[blocks.size() / 2] - 1;
  expect_vae_decoder(shapes, sizes);
  if (sizes.encoder) expect_vae_encoder(shapes, sizes);
  return sizes;
}

}  // namespace mgpu
