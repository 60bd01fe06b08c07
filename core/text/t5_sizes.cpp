#include "core/text/t5_sizes.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/part_shapes.h"

namespace mgpu {

T5Sizes read_t5_sizes(PartShapes& shapes) {
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

}  // namespace mgpu
