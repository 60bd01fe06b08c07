#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/models/held_blocks.h"
#include "core/ops.h"
#include "core/weights.h"

namespace mgpu {

/// What differs between CLIP's sizes and uses. The defaults are Flux's and SD1.5's CLIP-L.
struct ClipOptions {
  std::int64_t end = 49407;     ///< id of the end token, at whose first place the pooled state is read
  bool quick_gelu = true;       ///< x * sigmoid(1.702 x) (CLIP-L), else exact GELU (CLIP-H, CLIP-G)
  bool project_pooled = false;  ///< pooled is multiplied with text_projection, where the file has one
};

/// Which state is read.
struct ClipLayer {
  std::int64_t layer = -1;  ///< whose output is the hidden state; negative ones count from the architecture's last
  bool norm = true;         ///< the final layer norm is applied to the hidden state
};

/// Both in fp32.
struct ClipOutput {
  at::Tensor hidden;  ///< [B, N, C]
  at::Tensor
      pooled;  ///< [B, C]: the last layer's normed output at the first end token; undefined where the file lacks it
};

/// CLIP's text transformer, sizes taken from the tensors, heads of 64. Keys are transformers' (text_model.*,
/// text_projection.weight) or OpenCLIP's (transformer.resblocks.*, text_projection the other way round), told apart by
/// the names. Activations are fp32 whatever the weights' type, as in ComfyUI. Reference: transformers
/// (models/clip/modeling_clip.py), https://github.com/mlfoundations/open_clip (transformer.py).
class ClipEncoder {
 public:
  /// `weights`: where text_model.* (or, of early SD 1.x files, what is below it) or transformer.resblocks.* lies.
  /// Throws Error (exit 2) naming a missing tensor.
  ClipEncoder(const Weights& weights, const ClipOptions& options);
  /// Loads some of the blocks, which must be as many as the file has. Only these may run; embed() belongs to the first,
  /// finish() to the last.
  ClipEncoder(const Weights& weights, const ClipOptions& options, const HeldBlocks& held);

  /// What travels from block to block.
  struct State {
    at::Tensor ids;     ///< [B, N] int64
    at::Tensor x;       ///< [B, N, C] fp32
    at::Tensor hidden;  ///< x after the chosen layer, once that has run
    ClipLayer read;     ///< its layer counted from 0

    /// What moves along when the next block is another device's; `ids` stay on the CPU.
    std::vector<at::Tensor*> travelling() { return {&x, &hidden}; }
  };
  /// ids [B, N] int64, N at most the number of positions; an id -1 - i stands for row i of `vectors` [n, C]. Throws
  /// Error (exit 2) for an id that the vocabulary lacks and for a layer that the encoder lacks.
  State embed(const at::Tensor& ids, ClipLayer read = {}, const at::Tensor& vectors = {}) const;
  void block(int index, State& state, const Ops& ops) const;
  ClipOutput finish(const State& state, const Ops& ops) const;

  /// Layers that the file holds; the architecture may have more (clip_depth()).
  int blocks() const { return static_cast<int>(blocks_.size()); }
  std::int64_t width() const { return width_; }
  /// A held block's weights, for whoever streams them.
  std::vector<at::Tensor*> block_tensors(int index);
  ClipOutput forward(const at::Tensor& ids, const Ops& ops, const ClipLayer& read = {},
                     const at::Tensor& vectors = {}) const;

 private:
  struct Block {
    Norm norm1, norm2;
    Linear q, k, v, out, fc1, fc2;
  };

  struct Layout;

  static Layout layout_of(const Weights& weights);
  static Block load_transformers(const Weights& layer);
  static Block load_open_clip(const Weights& layer);

  ClipOptions options_;
  std::string path_;  ///< of the file, for messages
  std::int64_t width_ = 0;
  int depth_ = 0;  ///< layers of the architecture
  bool head_ = false;
  at::Tensor tokens_, positions_;  ///< undefined where the stem is not held
  std::vector<std::optional<Block>> blocks_;
  Norm final_norm_;    ///< undefined where the head is not held, and where the file has none
  Linear projection_;  ///< likewise, and where pooled is not projected
};

}  // namespace mgpu
