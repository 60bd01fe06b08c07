#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <vector>

#include "core/models/held_blocks.h"
#include "core/models/unet_blocks.h"
#include "core/models/unet_sizes.h"
#include "core/ops.h"
#include "core/weights.h"

namespace mgpu {

/// The text as every cross-attention sees it, in the order in which they run: it stays the same through all steps.
struct UNetText {
  std::vector<KeyValue> attention;
};

/// What travels from block to block, and so from device to device. A skip goes from its down block to the one up block
/// that takes it, and no further.
struct UNetState {
  at::Tensor h;    ///< [1, C, rows, columns], channels last
  at::Tensor emb;  ///< [1, 4 model channels]: timestep and vector, behind the SiLU that all blocks begin with
  std::vector<at::Tensor> skips;  ///< of each down block, undefined before it has run and after it was taken
  /// Rows and columns of each down block's result: odd ones do not follow from those of the level below.
  struct Extent {
    std::int64_t rows = 0, columns = 0;
  };
  std::vector<Extent> extents;
  const UNetText* text = nullptr;

  /// What moves along when the next block is another device's: `text` is that device's own, and skips wait where they
  /// were made, which is where they will be taken.
  std::vector<at::Tensor*> travelling() { return {&h, &emb}; }
};

/// A block's name, and whose skip it takes.
struct UNetBlockName {
  std::string_view kind;    ///< "down", "middle", "up"
  int number = 0;           ///< within its kind, from 0
  std::optional<int> skip;  ///< of an up block: the block (of all) whose skip it takes
};

/// The blocks of such a UNet in the order in which they run: the input convolution is down 0. Those that share a skip
/// should share a device.
std::vector<UNetBlockName> unet_blocks(const UNetSizes& sizes);

/// Stable Diffusion's UNet (1.x, 2.x, XL and its refiner): https://github.com/Stability-AI/generative-models
/// (openaimodel.py). Predicts the noise or v.
class UNet {
 public:
  /// Loads every tensor. Throws Error naming file and tensor where one is missing.
  UNet(const UNetSizes& sizes, const Weights& weights);
  /// Loads some of the blocks. Only these may run, and text() holds only theirs.
  UNet(const UNetSizes& sizes, const Weights& weights, const HeldBlocks& held);

  const UNetSizes& sizes() const { return sizes_; }

  /// Keys and values of the context [1, n, context width], once for all steps.
  UNetText text(const at::Tensor& context, const Ops& ops) const;

  /// Embeds timestep (0..999) and vector ([1, vector width]; undefined for models that take none). x [1, C, h, w] of
  /// any size. The caller sets the state's text.
  UNetState begin(const at::Tensor& x, double timestep, const at::Tensor& vector, const Ops& ops) const;
  /// Runs block `index` of block_count(), in unet_blocks()' order.
  void block(int index, UNetState& state, const Ops& ops) const;
  int block_count() const { return static_cast<int>(names_.size()); }
  /// The tensors that block() reads, of a block that is held: for whoever streams it.
  std::vector<at::Tensor*> block_tensors(int index);
  /// The prediction [1, channels_out, h, w].
  at::Tensor finish(const UNetState& state, const Ops& ops) const;

  /// All of the above: one evaluation. The result is in x's type; the model computes in its weights'.
  at::Tensor forward(const at::Tensor& x, double timestep, const at::Tensor& context, const at::Tensor& vector,
                     const Ops& ops) const;

 private:
  struct Mlp {
    Linear in, out;
  };
  /// What a block is made of: residual, transformer, residual (the middle's second), convolution, each if it is there.
  struct Block {
    std::vector<UNetResidual> residuals;
    std::optional<UNetTransformer> transformer;
    Conv conv;                        ///< the input's, or that of a change of resolution
    std::size_t first_attention = 0;  ///< of its transformer, in UNetText
  };

  static Mlp load_mlp(const Weights& weights, const char* in, const char* out);
  Block load_block(const BlockWeights& weights, const UNetBlockName& name) const;
  Block load_down(const BlockWeights& block, std::size_t number) const;
  Block load_middle(const BlockWeights& block) const;
  Block load_up(const BlockWeights& block, std::size_t number) const;
  void load_transformer(Block& out, const BlockWeights& block, int depth, int channels) const;

  void run_down(int number, const Block& block, UNetState& state, const Ops& ops) const;
  void run_up(int number, const Block& block, UNetState& state, const Ops& ops) const;
  /// Residuals and transformer.
  void run_layers(const Block& block, UNetState& state, const Ops& ops) const;

  UNetSizes sizes_;
  at::ScalarType dtype_;
  at::Device device_;
  Mlp time_in_, vector_in_;  ///< undefined where the first block is not held
  std::vector<UNetBlockName> names_;
  std::vector<std::optional<Block>> blocks_;
  Norm norm_out_;
  Conv conv_out_;
};

}  // namespace mgpu
