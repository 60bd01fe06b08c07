#include "core/family_sizes.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/part_shapes.h"
#include "core/text/recipe.h"

namespace mgpu {
namespace {

void expect_flux_double(PartShapes& shapes, const std::string& block, std::int64_t hidden, std::int64_t mlp) {
  for (const char* stream : {"img", "txt"}) {
    const std::string name = block + stream;
    shapes.linear(name + "_mod.lin", 6 * hidden, hidden);
    shapes.linear(name + "_attn.qkv", 3 * hidden, hidden);
    shapes.linear(name + "_attn.proj", hidden, hidden);
    shapes.expect(name + "_attn.norm.query_norm.scale", {128});
    shapes.expect(name + "_attn.norm.key_norm.scale", {128});
    shapes.linear(name + "_mlp.0", mlp, hidden);
    shapes.linear(name + "_mlp.2", hidden, mlp);
  }
}

void expect_flux_single(PartShapes& shapes, const std::string& block, std::int64_t hidden, std::int64_t mlp) {
  shapes.linear(block + "linear1", 3 * hidden + mlp, hidden);
  shapes.linear(block + "linear2", hidden, hidden + mlp);
  shapes.linear(block + "modulation.lin", 3 * hidden, hidden);
  shapes.expect(block + "norm.query_norm.scale", {128});
  shapes.expect(block + "norm.key_norm.scale", {128});
}

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

Sizes read_flux_sizes(PartShapes& shapes) {
  FluxSizes sizes;
  sizes.hidden = shapes.take_multiple("img_in.weight", 2, 0, 128);
  sizes.heads = sizes.hidden / 128;
  sizes.channels = shapes.take_multiple("img_in.weight", 2, 1, 4) / 4;
  sizes.context = shapes.take("txt_in.weight", 2, 1);
  sizes.vector = shapes.take("vector_in.in_layer.weight", 2, 1);
  sizes.mlp = shapes.take("double_blocks.0.img_mlp.0.weight", 2, 0);
  sizes.depth = shapes.blocks("double_blocks.");
  sizes.depth_single = shapes.blocks("single_blocks.");
  sizes.guidance = shapes.has_any("guidance_in.");

  const std::int64_t hidden = sizes.hidden, mlp = sizes.mlp;
  shapes.linear("img_in", hidden, 4 * sizes.channels);
  shapes.linear("txt_in", hidden, sizes.context);
  const auto embedder = [&](const std::string& name, std::int64_t in) {
    shapes.linear(name + ".in_layer", hidden, in);
    shapes.linear(name + ".out_layer", hidden, hidden);
  };
  embedder("time_in", 256);
  embedder("vector_in", sizes.vector);
  if (sizes.guidance) embedder("guidance_in", 256);
  for (int i = 0; i < sizes.depth; ++i) expect_flux_double(shapes, fmt::format("double_blocks.{}.", i), hidden, mlp);
  for (int i = 0; i < sizes.depth_single; ++i)
    expect_flux_single(shapes, fmt::format("single_blocks.{}.", i), hidden, mlp);
  shapes.linear("final_layer.adaLN_modulation.1", 2 * hidden, hidden);
  shapes.linear("final_layer.linear", 4 * sizes.channels, hidden);
  return sizes;
}

namespace {

/// A file may leave out the last layers, where nothing uses their output: SD 2's release has 23 of CLIP-H's 24.
void read_depth(const PartShapes& shapes, ClipSizes& sizes) {
  const int there = shapes.blocks(sizes.layers_prefix);
  sizes.depth = clip_depth(there, sizes.hidden);
  sizes.layers = std::min(there, sizes.depth);
}

/// What lies behind the layers, which only some families need.
void read_ends(PartShapes& shapes, ClipSizes& sizes) {
  sizes.final_norm = shapes.has_any(sizes.norm_name + ".");
  if (sizes.final_norm) shapes.norm(sizes.norm_name, sizes.hidden);
  sizes.projection = shapes.claim(sizes.projection_name);
}

}  // namespace

Sizes read_clip_sizes(PartShapes& shapes) {
  // Early SD 1.x files leave the level "text_model" out.
  const std::string model = shapes.has("encoder.layers.0.mlp.fc1.weight") ? "" : "text_model.";
  const std::string tokens = model + "embeddings.token_embedding.weight";
  const std::string positions = model + "embeddings.position_embedding.weight";
  ClipSizes sizes;
  sizes.layers_prefix = model + "encoder.layers.";
  sizes.vocabulary = shapes.take(tokens, 2, 0);
  sizes.hidden = shapes.take_multiple(tokens, 2, 1, 64);
  sizes.heads = sizes.hidden / 64;
  sizes.positions = shapes.take(positions, 2, 0);
  sizes.mlp = shapes.take(sizes.layers_prefix + "0.mlp.fc1.weight", 2, 0);
  read_depth(shapes, sizes);
  sizes.layer_norm = "layer_norm1";
  sizes.norm_name = model + "final_layer_norm";
  sizes.projection_name = "text_projection.weight";
  read_ends(shapes, sizes);

  const int hidden = sizes.hidden;
  shapes.expect(positions, {sizes.positions, hidden});
  for (int i = 0; i < sizes.layers; ++i) {
    const std::string layer = fmt::format("{}{}.", sizes.layers_prefix, i);
    shapes.norm(layer + "layer_norm1", hidden);
    for (const char* projection : {"q_proj", "k_proj", "v_proj", "out_proj"})
      shapes.linear(layer + "self_attn." + projection, hidden, hidden);
    shapes.norm(layer + "layer_norm2", hidden);
    shapes.linear(layer + "mlp.fc1", sizes.mlp, hidden);
    shapes.linear(layer + "mlp.fc2", hidden, sizes.mlp);
  }
  return sizes;
}

Sizes read_open_clip_sizes(PartShapes& shapes) {
  ClipSizes sizes;
  sizes.layers_prefix = "transformer.resblocks.";
  sizes.vocabulary = shapes.take("token_embedding.weight", 2, 0);
  sizes.hidden = shapes.take_multiple("token_embedding.weight", 2, 1, 64);
  sizes.heads = sizes.hidden / 64;
  sizes.positions = shapes.take("positional_embedding", 2, 0);
  sizes.mlp = shapes.take(sizes.layers_prefix + "0.mlp.c_fc.weight", 2, 0);
  read_depth(shapes, sizes);
  sizes.layer_norm = "ln_1";
  sizes.norm_name = "ln_final";
  sizes.projection_name = "text_projection";
  read_ends(shapes, sizes);

  const int hidden = sizes.hidden;
  shapes.expect("positional_embedding", {sizes.positions, hidden});
  for (int i = 0; i < sizes.layers; ++i) {
    const std::string layer = fmt::format("{}{}.", sizes.layers_prefix, i);
    shapes.norm(layer + "ln_1", hidden);
    shapes.expect(layer + "attn.in_proj_weight", {3 * hidden, hidden});
    shapes.expect(layer + "attn.in_proj_bias", {3 * hidden});
    shapes.linear(layer + "attn.out_proj", hidden, hidden);
    shapes.norm(layer + "ln_2", hidden);
    shapes.linear(layer + "mlp.c_fc", sizes.mlp, hidden);
    shapes.linear(layer + "mlp.c_proj", hidden, sizes.mlp);
  }
  return sizes;
}

Sizes read_t5_sizes(PartShapes& shapes) {
  const std::string bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
  T5Sizes sizes;
  sizes.embedding = shapes.has("shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  sizes.vocabulary = shapes.take(sizes.embedding, 2, 0);
  sizes.hidden = shapes.take(sizes.embedding, 2, 1);
  sizes.buckets = shapes.take_multiple(bias, 2, 0, 4);
  sizes.heads = shapes.take(bias, 2, 1);
  sizes.head_dim =
      shapes.take_multiple("encoder.block.0.layer.0.SelfAttention.q.weight", 2, 0, sizes.heads) / sizes.heads;
  sizes.mlp = shapes.take("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 2, 0);
  sizes.layers = shapes.blocks("encoder.block.");
  // XXL's own sizes: a file that ends early is not a smaller model.
  if (sizes.hidden == 4096 && sizes.mlp == 10240) sizes.layers = std::max(sizes.layers, 24);

  const int hidden = sizes.hidden, inner = sizes.heads * sizes.head_dim;
  for (int i = 0; i < sizes.layers; ++i) {
    const std::string attention = fmt::format("encoder.block.{}.layer.0.", i);
    const std::string feed_forward = fmt::format("encoder.block.{}.layer.1.", i);
    for (const char* projection : {"q", "k", "v"})
      shapes.expect(fmt::format("{}SelfAttention.{}.weight", attention, projection), {inner, hidden});
    shapes.expect(attention + "SelfAttention.o.weight", {hidden, inner});
    shapes.expect(attention + "layer_norm.weight", {hidden});
    shapes.expect(feed_forward + "DenseReluDense.wi_0.weight", {sizes.mlp, hidden});
    shapes.expect(feed_forward + "DenseReluDense.wi_1.weight", {sizes.mlp, hidden});
    shapes.expect(feed_forward + "DenseReluDense.wo.weight", {hidden, sizes.mlp});
    shapes.expect(feed_forward + "layer_norm.weight", {hidden});
  }
  shapes.expect("encoder.final_layer_norm.weight", {hidden});
  return sizes;
}

Sizes read_vae_sizes(PartShapes& shapes) {
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
