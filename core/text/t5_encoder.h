#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "core/models/held_blocks.h"
#include "core/ops.h"
#include "core/weights.h"

namespace mgpu {

/// T5 v1.1's encoder (gated tanh GELU), keys as in transformers (encoder.block.*, shared.weight or
/// encoder.embed_tokens.weight), sizes taken from the tensors. Nothing is masked: padding is attended to. Activations
/// are fp32 whatever the weights' type, as in ComfyUI; in fp16 they would overflow. Reference: transformers
/// (models/t5/modeling_t5.py).
class T5Encoder {
 public:
  /// `weights`: where encoder.* lies. Throws Error (exit 2) naming a missing tensor.
  explicit T5Encoder(const Weights& weights);
  /// Loads some of the blocks, which must be as many as the file has. Only these may run; embed() belongs to the first,
  /// finish() to the last.
  T5Encoder(const Weights& weights, const HeldBlocks& held);

  /// What travels from block to block.
  struct State {
    at::Tensor x;     ///< [B, N, C] fp32
    at::Tensor bias;  ///< [1, H, N, N] fp32: relative positions, the same for every block

    /// What moves along when the next block is another device's.
    std::vector<at::Tensor*> travelling() { return {&x, &bias}; }
  };
  /// ids [B, N] int64; an id -1 - i stands for row i of `vectors` [n, C]. Throws Error (exit 2) for an id that the
  /// vocabulary lacks.
  State embed(const at::Tensor& ids, const at::Tensor& vectors = {}) const;
  void block(int index, State& state, const Ops& ops) const;
  /// [B, N, C] fp32
  at::Tensor finish(const State& state) const;

  int blocks() const { return static_cast<int>(blocks_.size()); }
  std::int64_t width() const { return width_; }
  /// A held block's weights, for whoever streams them.
  std::vector<at::Tensor*> block_tensors(int index);
  at::Tensor forward(const at::Tensor& ids, const Ops& ops, const at::Tensor& vectors = {}) const;

 private:
  struct Block {
    at::Tensor attention_norm, mlp_norm;  ///< [C] fp32
    Linear q, k, v, o, wi_0, wi_1, wo;
  };

  static Block load_block(const Weights& weights, int index);

  std::string path_;  ///< of the file, for messages
  std::int64_t width_;
  at::Tensor tokens_;         ///< undefined, as the next, where the stem is not held
  at::Tensor position_bias_;  ///< [buckets, H] fp32
  std::vector<std::optional<Block>> blocks_;
  at::Tensor final_norm_;  ///< undefined where the head is not held
};

}  // namespace mgpu
