#include "core/models/flux_sizes.h"

#include <fmt/format.h>

#include <string>

#include "core/part_shapes.h"

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

}  // namespace

FluxSizes read_flux_sizes(PartShapes& shapes) {
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

}  // namespace mgpu
