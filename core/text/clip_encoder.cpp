#include "core/text/clip_encoder.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/text/embedding.h"

namespace mgpu {
namespace {

constexpr std::int64_t kHeadDim = 64;
constexpr double kEps = 1e-5;

/// Operations widen a weight to the activations' type at use; a bias they take as it is.
Linear wide_bias(Linear linear) {
  if (linear.bias.defined()) linear.bias = linear.bias.to(at::kFloat);
  return linear;
}

Norm wide(Norm norm) {
  return {norm.weight.to(at::kFloat), norm.bias.to(at::kFloat)};
}

at::Tensor layer_norm(const at::Tensor& x, const Norm& norm) {
  return at::layer_norm(x, {x.size(-1)}, norm.weight, norm.bias, kEps);
}

/// [B, N, C] -> [B, H, N, 64]
at::Tensor split_heads(const at::Tensor& x) {
  return x.unflatten(-1, {-1, kHeadDim}).transpose(1, 2);
}

}  // namespace

ClipEncoder::ClipEncoder(const Weights& weights, const ClipOptions& options)
    : options_(options), path_(weights.file().path()) {
  if (weights.has("token_embedding.weight")) {
    read_open_clip(weights);
  } else {
    const bool bare = weights.has("encoder.layers.0.mlp.fc1.weight");  // early SD 1.x files leave the level out
    read_transformers(bare ? weights : weights.at("text_model"));
  }
  if (width() % kHeadDim != 0) {
    fail_file(path_, fmt::format("the CLIP encoder's width {} is not a multiple of {}", width(), kHeadDim),
              "only heads of 64 are known");
  }
  if (!options_.project_pooled) return;
  if (weights.has("text_projection.weight")) {
    projection_ = weights.linear("text_projection");
  } else if (weights.has("text_projection")) {
    projection_.weight = weights.get("text_projection").t().contiguous();  // OpenCLIP multiplies from the right
  }
}

void ClipEncoder::read_transformers(const Weights& weights) {
  tokens_ = weights.get("embeddings.token_embedding.weight");
  positions_ = weights.get("embeddings.position_embedding.weight");
  for (std::int64_t i = 0; weights.has(fmt::format("encoder.layers.{}.mlp.fc1.weight", i)); ++i) {
    const Weights layer = weights.at(fmt::format("encoder.layers.{}", i));
    blocks_.push_back({.norm1 = wide(layer.norm("layer_norm1")),
                       .norm2 = wide(layer.norm("layer_norm2")),
                       .q = wide_bias(layer.linear("self_attn.q_proj")),
                       .k = wide_bias(layer.linear("self_attn.k_proj")),
                       .v = wide_bias(layer.linear("self_attn.v_proj")),
                       .out = wide_bias(layer.linear("self_attn.out_proj")),
                       .fc1 = wide_bias(layer.linear("mlp.fc1")),
                       .fc2 = wide_bias(layer.linear("mlp.fc2"))});
  }
  final_norm_ = wide(weights.norm("final_layer_norm"));
}

void ClipEncoder::read_open_clip(const Weights& weights) {
  tokens_ = weights.get("token_embedding.weight");
  positions_ = weights.get("positional_embedding");
  for (std::int64_t i = 0; weights.has(fmt::format("transformer.resblocks.{}.mlp.c_fc.weight", i)); ++i) {
    const Weights layer = weights.at(fmt::format("transformer.resblocks.{}", i));
    const Linear qkv = wide_bias(layer.linear("attn.in_proj_weight", "attn.in_proj_bias"));
    blocks_.push_back({.norm1 = wide(layer.norm("ln_1")),
                       .norm2 = wide(layer.norm("ln_2")),
                       .q = rows(qkv, 0, width()),
                       .k = rows(qkv, width(), width()),
                       .v = rows(qkv, 2 * width(), width()),
                       .out = wide_bias(layer.linear("attn.out_proj")),
                       .fc1 = wide_bias(layer.linear("mlp.c_fc")),
                       .fc2 = wide_bias(layer.linear("mlp.c_proj"))});
  }
  final_norm_ = wide(weights.norm("ln_final"));
}

ClipEncoder::State ClipEncoder::embed(const at::Tensor& ids, ClipLayer read, const at::Tensor& vectors) const {
  MGPU_CHECK(ids.size(1) <= positions_.size(0), "{} tokens for {} positions", ids.size(1), positions_.size(0));
  const std::int64_t from_first = read.layer < 0 ? read.layer + blocks() : read.layer;
  if (from_first < 0 || from_first >= blocks()) {
    fail_file(path_, fmt::format("the CLIP encoder has {} layers, and layer {} was asked for", blocks(), read.layer),
              "a clip_skip that passes the first layer cannot be rendered");
  }
  read.layer = from_first;
  const at::Tensor x = embed_tokens(tokens_, ids, path_, vectors) + positions_.narrow(0, 0, ids.size(1)).to(at::kFloat);
  return {ids, x, {}, read};
}

void ClipEncoder::block(std::int64_t index, State& state, const Ops& ops) const {
  const Block& b = blocks_.at(static_cast<std::size_t>(index));
  const at::Tensor normed = layer_norm(state.x, b.norm1);
  const at::Tensor attended =
      ops.attention(split_heads(ops.linear_col(normed, b.q)), split_heads(ops.linear_col(normed, b.k)),
                    split_heads(ops.linear_col(normed, b.v)), {.scale = 0.0, .causal = true, .bias = {}});
  const at::Tensor x = state.x + ops.linear_row(attended.transpose(1, 2).flatten(2), b.out);
  at::Tensor inner = ops.linear_col(layer_norm(x, b.norm2), b.fc1);
  inner = options_.quick_gelu ? inner * at::sigmoid(inner * 1.702) : at::gelu(inner);
  state.x = x + ops.linear_row(inner, b.fc2);
  if (index == state.read.layer) state.hidden = state.x;
}

ClipOutput ClipEncoder::finish(const State& state, const Ops& ops) const {
  const at::Tensor last = layer_norm(state.x, final_norm_);
  const at::Tensor end = state.ids.to(last.device()).eq(options_.end).to(at::kInt).argmax(1);  // the first of equals
  at::Tensor pooled = last.index({at::arange(last.size(0), end.options()), end});
  if (projection_.weight.defined()) pooled = ops.linear_col(pooled, projection_);
  if (!state.read.norm) return {state.hidden, pooled};
  return {state.read.layer + 1 == blocks() ? last : layer_norm(state.hidden, final_norm_), pooled};
}

ClipOutput ClipEncoder::forward(const at::Tensor& ids, const Ops& ops, const ClipLayer& read,
                                const at::Tensor& vectors) const {
  State state = embed(ids, read, vectors);
  for (std::int64_t i = 0; i < blocks(); ++i) block(i, state, ops);
  return finish(state, ops);
}

}  // namespace mgpu
