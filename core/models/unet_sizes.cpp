#include "core/models/unet_sizes.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/part_shapes.h"

namespace mgpu {
namespace {

/// The original UNet's text numbers blocks through input_blocks, middle_block and output_blocks; within a block, 0 is
/// the residual block, 1 the transformer or what changes the resolution, 2 that behind a transformer.
class UNetReader {
 public:
  explicit UNetReader(PartShapes& shapes) : shapes_(shapes) {}

  UNetSizes read() {
    sizes_.channels_in = shapes_.take("input_blocks.0.0.weight", 4, 1);
    sizes_.model_channels = shapes_.take_multiple("input_blocks.0.0.weight", 4, 0, kNormGroups);
    sizes_.channels_out = shapes_.take("out.2.weight", 4, 0);
    if (shapes_.has_any("label_emb.")) sizes_.vector = shapes_.take("label_emb.0.0.weight", 2, 1);
    read_embeddings();
    read_way_down();
    read_middle();
    read_way_up();
    shapes_.norm("out.0", sizes_.up.back().out);
    shapes_.conv("out.2", sizes_.channels_out, sizes_.up.back().out, 3);
    return sizes_;
  }

 private:
  int embedding() const { return 4 * sizes_.model_channels; }

  void read_embeddings() const {
    const int width = embedding();
    shapes_.linear("time_embed.0", width, sizes_.model_channels);
    shapes_.linear("time_embed.2", width, width);
    if (sizes_.vector == 0) return;
    shapes_.linear("label_emb.0.0", width, sizes_.vector);
    shapes_.linear("label_emb.0.2", width, width);
  }

  void read_way_down() {
    int channels = sizes_.model_channels;
    shapes_.conv("input_blocks.0.0", channels, sizes_.channels_in, 3);
    sizes_.down.push_back({.in = sizes_.channels_in, .out = channels});
    const int count = shapes_.blocks("input_blocks.");
    read_depths(count);
    for (int i = 1; i < count; ++i) {
      const std::string block = fmt::format("input_blocks.{}.", i);
      UNetBlockSizes sizes{.in = channels, .out = channels};
      if (shapes_.has(block + "0.op.weight")) {
        sizes.resamples = true;
        shapes_.conv(block + "0.op", channels, channels, 3);
      } else {
        sizes.out = read_residual(block + "0.", channels);
        sizes.depth = read_transformer(block + "1.", sizes.out, depths_[static_cast<std::size_t>(i)]);
      }
      channels = sizes.out;
      sizes_.down.push_back(sizes);
    }
  }

  /// All blocks of a level, between two changes of the resolution, have transformers of one depth, or none: one that
  /// has fewer lacks them.
  void read_depths(int count) {
    depths_.assign(static_cast<std::size_t>(count), 0);
    for (int first = 0, i = 0; i <= count; ++i) {
      if (i < count && !shapes_.has(fmt::format("input_blocks.{}.0.op.weight", i))) continue;
      int depth = 0;
      for (int block = first; block < i; ++block)
        depth = std::max(depth, transformer_depth(fmt::format("input_blocks.{}.1.", block)));
      std::fill(depths_.begin() + first, depths_.begin() + i, depth);
      first = i;
    }
  }

  void read_middle() {
    const int channels = sizes_.down.back().out;
    if (!shapes_.has_any("middle_block.")) return;  // Koala has none
    sizes_.middle_residuals = shapes_.has_any("middle_block.1.") || shapes_.has_any("middle_block.2.") ? 2 : 1;
    read_residual("middle_block.0.", channels);
    if (sizes_.middle_residuals < 2) return;
    const bool has_transformers = std::ranges::any_of(depths_, [](int depth) { return depth > 0; });
    sizes_.depth_middle = read_transformer("middle_block.1.", channels, has_transformers ? 1 : 0);
    read_residual("middle_block.2.", channels);
  }

  void read_way_up() {
    int channels = sizes_.down.back().out;
    for (int i = 0; i < static_cast<int>(sizes_.down.size()); ++i) {
      const std::string block = fmt::format("output_blocks.{}.", i);
      const UNetBlockSizes& taken = sizes_.down[static_cast<std::size_t>(sizes_.skip_of(i))];
      UNetBlockSizes sizes{.in = channels, .skip = taken.out};
      sizes.out = read_residual(block + "0.", channels + sizes.skip);
      // Distilled models without a whole middle have kept transformers of several depths on the way up.
      const int depth = depths_[static_cast<std::size_t>(sizes_.skip_of(i))];
      sizes.depth = read_transformer(block + "1.", sizes.out, sizes_.middle_residuals < 2 ? std::min(depth, 1) : depth);
      sizes.resamples = taken.resamples;
      if (sizes.resamples)
        shapes_.conv(fmt::format("{}{}.conv", block, sizes.depth > 0 ? 2 : 1), sizes.out, sizes.out, 3);
      channels = sizes.out;
      sizes_.up.push_back(sizes);
    }
  }

  /// Returns the channels that it gives.
  int read_residual(const std::string& block, int in) const {
    const int out = shapes_.take_multiple(block + "in_layers.2.weight", 4, 0, kNormGroups);
    shapes_.norm(block + "in_layers.0", in);
    shapes_.conv(block + "in_layers.2", out, in, 3);
    shapes_.linear(block + "emb_layers.1", out, embedding());
    shapes_.norm(block + "out_layers.0", out);
    shapes_.conv(block + "out_layers.3", out, out, 3);
    if (in != out) shapes_.conv(block + "skip_connection", out, in, 1);
    return out;
  }

  /// How many transformer blocks there are: 0 where there is no transformer.
  int transformer_depth(const std::string& name) const {
    return has_transformer(name) ? std::max(shapes_.blocks(name + "transformer_blocks."), 1) : 0;
  }

  /// Returns how many transformer blocks there are, which are at least so many: 0 where there is no transformer.
  int read_transformer(const std::string& name, int channels, int least) {
    const int depth = std::max(transformer_depth(name), least);
    if (depth == 0) return 0;
    if (sizes_.context == 0) {
      sizes_.context = shapes_.take(name + "transformer_blocks.0.attn2.to_k.weight", 2, 1);
      sizes_.linear_projections = shapes_.rank(name + "proj_in.weight") == 2;
    }
    shapes_.norm(name + "norm", channels);
    for (const char* projection : {"proj_in", "proj_out"}) {
      if (sizes_.linear_projections) {
        shapes_.linear(name + projection, channels, channels);
      } else {
        shapes_.conv(name + projection, channels, channels, 1);
      }
    }
    // Heads are 64 wide, or there are 8 of them.
    shapes_.take_multiple(name + "norm.weight", 1, 0, sizes_.linear_projections ? 64 : 8);
    for (int i = 0; i < depth; ++i) read_transformer_block(fmt::format("{}transformer_blocks.{}.", name, i), channels);
    return depth;
  }

  bool has_transformer(const std::string& name) const {
    return shapes_.has_any(name + "transformer_blocks.") || shapes_.has_any(name + "proj_in.") ||
           shapes_.has_any(name + "norm.");
  }

  void read_transformer_block(const std::string& block, int channels) const {
    for (const char* norm : {"norm1", "norm2", "norm3"}) shapes_.norm(block + norm, channels);
    for (const auto& [attention, from] : {std::pair{"attn1.", channels}, std::pair{"attn2.", sizes_.context}}) {
      const std::string name = block + attention;
      shapes_.expect(name + "to_q.weight", {channels, channels});
      shapes_.expect(name + "to_k.weight", {channels, from});
      shapes_.expect(name + "to_v.weight", {channels, from});
      shapes_.linear(name + "to_out.0", channels, channels);
    }
    shapes_.linear(block + "ff.net.0.proj", std::int64_t{8} * channels, channels);
    shapes_.linear(block + "ff.net.2", channels, std::int64_t{4} * channels);
  }

  PartShapes& shapes_;
  UNetSizes sizes_;
  std::vector<int> depths_;  ///< of the transformers on the level of each block on the way down
};

}  // namespace

UNetSizes read_unet_sizes(PartShapes& shapes) {
  return UNetReader(shapes).read();
}

}  // namespace mgpu
