#include "core/text/clip_sizes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/part_shapes.h"

namespace mgpu {
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

ClipSizes read_transformers(PartShapes& shapes) {
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

ClipSizes read_open_clip(PartShapes& shapes) {
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

}  // namespace

ClipSizes read_clip_sizes(PartShapes& shapes) {
  return shapes.has("transformer.resblocks.0.mlp.c_fc.weight") ? read_open_clip(shapes) : read_transformers(shapes);
}

int clip_depth(int layers, std::int64_t width) {
  struct Architecture {
    std::int64_t width;
    int depth;
  };
  constexpr std::array<Architecture, 3> kKnown{{{768, 12}, {1024, 24}, {1280, 32}}};
  for (const Architecture& known : kKnown)
    if (known.width == width) return known.depth;
  for (const Architecture& known : kKnown)
    if (known.depth - 1 == layers) return known.depth;
  return layers;
}

}  // namespace mgpu
