#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

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

  /// What travels from block to block.
  struct State {
    at::Tensor x;     ///< [B, N, C] fp32
    at::Tensor bias;  ///< [1, H, N, N] fp32: relative positions, the same for every block
  };
  /// ids [B, N] int64; an id -1 - i stands for row i of `vectors` [n, C]. Throws Error (exit 2) for an id that the
  /// vocabulary lacks.
  State embed(const at::Tensor& ids, const at::Tensor& vectors = {}) const;
  void block(std::int64_t index, State& state, const Ops& ops) const;
  /// [B, N, C] fp32
  at::Tensor finish(const State& state) const;

  std::int64_t blocks() const { return static_cast<std::int64_t>(blocks_.size()); }
  std::int64_t width() const { return tokens_.size(1); }
  at::Tensor forward(const at::Tensor& ids, const Ops& ops, const at::Tensor& vectors = {}) const;

 private:
  struct Block {
    at::Tensor attention_norm, mlp_norm;  ///< [C] fp32
    Linear q, k, v, o, wi_0, wi_1, wo;
  };

  std::string path_;  ///< of the file, for messages
  at::Tensor tokens_;
  at::Tensor position_bias_;  ///< [buckets, H] fp32
  std::vector<Block> blocks_;
  at::Tensor final_norm_;
};

}  // namespace mgpu
