#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/ops.h"
#include "core/weights.h"

namespace mgpu {

/// What differs between the families that use a CLIP text encoder. The defaults are Flux's and SD1.5's CLIP-L.
struct ClipOptions {
  std::int64_t end = 49407;     ///< id of the end token, at whose first place the pooled state is read
  bool quick_gelu = true;       ///< x * sigmoid(1.702 x) (CLIP-L), else exact GELU (CLIP-G)
  std::int64_t layer = -1;      ///< whose output is the hidden state; negative ones count from the last
  bool norm_layer = true;       ///< the final layer norm is applied to the hidden state
  bool project_pooled = false;  ///< pooled is multiplied with text_projection, where the file has one
};

/// Both in fp32.
struct ClipOutput {
  at::Tensor hidden;  ///< [B, N, C]
  at::Tensor pooled;  ///< [B, C]: the last layer's normed output at the first end token
};

/// CLIP's text transformer, keys as in transformers (text_model.*, text_projection.weight), sizes taken from the
/// tensors, heads of 64. Activations are fp32 whatever the weights' type, as in ComfyUI. Reference: transformers
/// (models/clip/modeling_clip.py).
class ClipEncoder {
 public:
  /// `weights`: where text_model.* lies. Throws Error (exit 2) naming a missing tensor.
  ClipEncoder(const Weights& weights, const ClipOptions& options);

  /// What travels from block to block.
  struct State {
    at::Tensor ids;     ///< [B, N] int64
    at::Tensor x;       ///< [B, N, C] fp32
    at::Tensor hidden;  ///< x after the chosen layer, once that has run
  };
  /// ids [B, N] int64, N at most the number of positions. Throws Error (exit 2) for an id that the vocabulary lacks.
  State embed(const at::Tensor& ids) const;
  void block(std::int64_t index, State& state, const Ops& ops) const;
  ClipOutput finish(const State& state, const Ops& ops) const;

  std::int64_t blocks() const { return static_cast<std::int64_t>(blocks_.size()); }
  ClipOutput forward(const at::Tensor& ids, const Ops& ops) const;

 private:
  struct Block {
    Norm norm1, norm2;
    Linear q, k, v, out, fc1, fc2;
  };

  ClipOptions options_;
  std::string path_;  ///< of the file, for messages
  at::Tensor tokens_, positions_;
  std::vector<Block> blocks_;
  Norm final_norm_;
  Linear projection_;  ///< weight undefined where pooled is not projected
};

}  // namespace mgpu
