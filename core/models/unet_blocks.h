#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "core/models/held_blocks.h"
#include "core/ops.h"
#include "core/weights.h"

namespace mgpu {

/// Keys and values of one cross-attention over the text: [1, H, N, D] each.
struct KeyValue {
  at::Tensor key, value;
};

/// A 3x3 convolution's tensors, in the layout of memory that the UNet convolves in (channels last).
Conv load_conv3x3(const Weights& weights, const std::string& name);

/// x + conv(silu(norm(conv(silu(norm(x))) + embedding))); x goes through a 1x1 convolution where the channels change.
class UNetResidual {
 public:
  explicit UNetResidual(const Weights& block);
  /// x [1, C, h, w], emb [1, 4 model channels] behind its SiLU -> [1, C', h, w].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& emb, const Ops& ops) const;
  void append_tensors(std::vector<at::Tensor*>& out);

 private:
  Norm norm1_, norm2_;
  Conv conv1_, conv2_;
  Linear embedding_, shortcut_;  ///< shortcut_.weight undefined where the channels stay
};

/// A transformer over the image's positions: blocks of self-attention, cross-attention over the text and a GEGLU
/// feed-forward (Rombach et al. 2022, arXiv:2112.10752), added to what came in.
class UNetTransformer {
 public:
  UNetTransformer(const BlockWeights& block, int depth, int heads);
  int depth() const { return static_cast<int>(blocks_.size()); }
  /// Appends every block's keys and values of context [1, N, width].
  void append_text(const at::Tensor& context, std::vector<KeyValue>& out, const Ops& ops) const;
  /// x [1, C, h, w] -> likewise; text: depth() of them.
  at::Tensor forward(const at::Tensor& x, std::span<const KeyValue> text, const Ops& ops) const;
  void append_tensors(std::vector<at::Tensor*>& out);

 private:
  struct SelfAttention {
    Linear q, k, v, out;
  };
  struct CrossAttention {  ///< the text's keys and values are computed before the steps
    Linear q, out;
    PrecomputedLinear k, v;
  };
  struct Block {
    Norm norm1, norm2, norm3;
    SelfAttention self;
    CrossAttention cross;
    Linear wide, narrow;
  };

  static Block load_block(const BlockWeights& block);
  at::Tensor split_heads(const at::Tensor& x) const;
  at::Tensor attend(const at::Tensor& q, const KeyValue& to, const Linear& out, const Ops& ops) const;
  at::Tensor attend_self(const SelfAttention& self, const at::Tensor& normal, const Ops& ops) const;
  at::Tensor run(const Block& block, const at::Tensor& x, const KeyValue& text, const Ops& ops) const;

  Norm norm_;
  Linear in_, out_;
  std::vector<Block> blocks_;
  std::int64_t head_dim_ = 0;
};

}  // namespace mgpu
