#include "core/models/unet_blocks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/elementwise.h"
#include "core/nn.h"

namespace mgpu {
namespace {

constexpr double kResidualEps = 1e-5;
constexpr double kTransformerEps = 1e-6;
constexpr double kLayerNormEps = 1e-5;

/// A matrix, or a 1x1 convolution as what it is to positions: a matrix.
Linear load_projection(const Weights& weights, const std::string& name) {
  Linear linear = weights.linear(name);
  linear.weight = linear.weight.as_matrix();
  return linear;
}

at::Tensor norm_silu(const at::Tensor& x, const Norm& norm, const Ops& ops) {
  const at::Tensor normal = ops.group_norm(x, norm, kResidualEps);
  elementwise::silu_(normal);
  return normal;
}

at::Tensor layer_norm(const at::Tensor& x, const Norm& norm) {
  return at::layer_norm(x, {x.size(-1)}, norm.weight, norm.bias, kLayerNormEps);
}

/// [1, C, h, w] -> [1, h * w, C]: no copy where channels lie last.
at::Tensor to_tokens(const at::Tensor& x) {
  return x.permute({0, 2, 3, 1}).reshape({x.size(0), x.size(2) * x.size(3), x.size(1)});
}

/// [1, h * w, C] -> [1, C, h, w], channels last in memory.
at::Tensor to_image(const at::Tensor& tokens, std::int64_t rows, std::int64_t columns) {
  return tokens.view({tokens.size(0), rows, columns, tokens.size(2)}).permute({0, 3, 1, 2});
}

}  // namespace

Conv load_conv3x3(const Weights& weights, const std::string& name) {
  Conv conv = weights.conv(name);
  conv.weight = conv.weight.contiguous(at::MemoryFormat::ChannelsLast);
  return conv;
}

UNetResidual::UNetResidual(const Weights& block)
    : norm1_(block.norm("in_layers.0")),
      norm2_(block.norm("out_layers.0")),
      conv1_(load_conv3x3(block, "in_layers.2")),
      conv2_(load_conv3x3(block, "out_layers.3")),
      embedding_(block.linear("emb_layers.1")) {
  if (block.has("skip_connection.weight")) shortcut_ = load_projection(block, "skip_connection");
}

at::Tensor UNetResidual::forward(const at::Tensor& x, const at::Tensor& emb, const Ops& ops) const {
  at::Tensor inner = ops.conv3x3(norm_silu(x, norm1_, ops), conv1_);
  inner = inner + ops.linear_row(emb, embedding_).unsqueeze(-1).unsqueeze(-1);
  const at::Tensor change = ops.conv3x3(norm_silu(inner, norm2_, ops), conv2_);
  if (!shortcut_.weight.defined()) return x + change;
  return to_image(ops.linear_row(to_tokens(x), shortcut_), x.size(2), x.size(3)) + change;
}

void UNetResidual::append_tensors(std::vector<at::Tensor*>& out) {
  for (Norm* norm : {&norm1_, &norm2_}) mgpu::append_tensors(*norm, out);
  for (Conv* conv : {&conv1_, &conv2_}) mgpu::append_tensors(*conv, out);
  for (Linear* linear : {&embedding_, &shortcut_}) mgpu::append_tensors(*linear, out);
}

UNetTransformer::Block UNetTransformer::load_block(const BlockWeights& block) {
  const Weights& weights = block.weights;
  const Weights self = weights.at("attn1"), cross = weights.at("attn2");
  const BlockWeights text = block.at("attn2");
  return {weights.norm("norm1"),
          weights.norm("norm2"),
          weights.norm("norm3"),
          {self.linear("to_q"), self.linear("to_k"), self.linear("to_v"), self.linear("to_out.0")},
          {cross.linear("to_q"), cross.linear("to_out.0"), text.precomputed("to_k"), text.precomputed("to_v")},
          weights.linear("ff.net.0.proj"),
          weights.linear("ff.net.2")};
}

UNetTransformer::UNetTransformer(const BlockWeights& block, int depth, int heads)
    : norm_(block.weights.norm("norm")),
      in_(load_projection(block.weights, "proj_in")),
      out_(load_projection(block.weights, "proj_out")) {
  for (int i = 0; i < depth; ++i) blocks_.push_back(load_block(block.at(fmt::format("transformer_blocks.{}", i))));
  head_dim_ = norm_.weight.size(0) / heads;
}

void UNetTransformer::append_text(const at::Tensor& context, std::vector<KeyValue>& out, const Ops& ops) const {
  for (const Block& block : blocks_)
    out.push_back({split_heads(ops.linear_col(context, block.cross.k.linear())),
                   split_heads(ops.linear_col(context, block.cross.v.linear()))});
}

/// [1, N, H * D] -> [1, H, N, D]. A placement may keep only some heads: their number follows from what there is.
at::Tensor UNetTransformer::split_heads(const at::Tensor& x) const {
  return x.unflatten(-1, {-1, head_dim_}).transpose(1, 2);
}

at::Tensor UNetTransformer::forward(const at::Tensor& x, std::span<const KeyValue> text, const Ops& ops) const {
  at::Tensor tokens = ops.linear_row(to_tokens(ops.group_norm(x, norm_, kTransformerEps)), in_);
  for (std::size_t i = 0; i < blocks_.size(); ++i) tokens = run(blocks_[i], tokens, text[i], ops);
  return x + to_image(ops.linear_row(tokens, out_), x.size(2), x.size(3));
}

at::Tensor UNetTransformer::attend(const at::Tensor& q, const KeyValue& to, const Linear& out, const Ops& ops) const {
  const at::Tensor mixed = ops.attention(split_heads(q), to.key, to.value);
  return ops.linear_row(mixed.transpose(1, 2).flatten(-2), out);
}

at::Tensor UNetTransformer::attend_self(const SelfAttention& self, const at::Tensor& normal, const Ops& ops) const {
  const KeyValue own{split_heads(ops.linear_col(normal, self.k)), split_heads(ops.linear_col(normal, self.v))};
  return attend(ops.linear_col(normal, self.q), own, self.out, ops);
}

at::Tensor UNetTransformer::run(const Block& block, const at::Tensor& x, const KeyValue& text, const Ops& ops) const {
  at::Tensor y = x + attend_self(block.self, layer_norm(x, block.norm1), ops);
  y = y + attend(ops.linear_col(layer_norm(y, block.norm2), block.cross.q), text, block.cross.out, ops);
  return y + ops.linear_row(geglu(ops.linear_col(layer_norm(y, block.norm3), block.wide)), block.narrow);
}

void UNetTransformer::append_tensors(std::vector<at::Tensor*>& out) {
  mgpu::append_tensors(norm_, out);
  for (Linear* linear : {&in_, &out_}) mgpu::append_tensors(*linear, out);
  for (Block& block : blocks_) {
    for (Norm* norm : {&block.norm1, &block.norm2, &block.norm3}) mgpu::append_tensors(*norm, out);
    SelfAttention& self = block.self;
    for (Linear* linear :
         {&self.q, &self.k, &self.v, &self.out, &block.cross.q, &block.cross.out, &block.wide, &block.narrow})
      mgpu::append_tensors(*linear, out);
  }
}

}  // namespace mgpu
