#include "core/text/clip_encoder.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/text/clip_sizes.h"
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

/// Its weight is undefined where the file has none.
Linear load_projection(const Weights& weights) {
  Linear out;
  if (weights.has("text_projection.weight")) {
    out = weights.linear("text_projection");
  } else if (weights.has("text_projection")) {
    out.weight = weights.get("text_projection").t().contiguous();  // OpenCLIP multiplies from the right
  }
  return out;
}

}  // namespace

/// Where a layout keeps what lies outside the blocks, and what one block is called.
struct ClipEncoder::Layout {
  Weights weights;                                              ///< below the level text_model
  const char *tokens, *positions, *final_norm, *layers, *sign;  ///< `sign`: a tensor that every layer has
  Block (*load)(const Weights& layer);

  std::string layer(int index) const { return fmt::format("{}.{}", layers, index); }
  /// How many layers the file has; of one that has none the first is missing.
  int in_file() const {
    int count = 1;
    while (weights.has(layer(count) + sign)) ++count;
    return count;
  }
  /// Layers of the architecture.
  int depth() const { return clip_depth(in_file(), weights.shape(tokens).at(1)); }
  /// Layers that are run: what the file has beyond its architecture is left over.
  int count() const { return std::min(in_file(), depth()); }
};

ClipEncoder::Layout ClipEncoder::layout_of(const Weights& weights) {
  if (weights.has("token_embedding.weight")) {
    return {.weights = weights,
            .tokens = "token_embedding.weight",
            .positions = "positional_embedding",
            .final_norm = "ln_final",
            .layers = "transformer.resblocks",
            .sign = ".mlp.c_fc.weight",
            .load = load_open_clip};
  }
  const bool bare = weights.has("encoder.layers.0.mlp.fc1.weight");  // early SD 1.x files leave the level out
  return {.weights = bare ? weights : weights.at("text_model"),
          .tokens = "embeddings.token_embedding.weight",
          .positions = "embeddings.position_embedding.weight",
          .final_norm = "final_layer_norm",
          .layers = "encoder.layers",
          .sign = ".mlp.fc1.weight",
          .load = load_transformers};
}

ClipEncoder::ClipEncoder(const Weights& weights, const ClipOptions& options)
    : ClipEncoder(weights, options, HeldBlocks::all(layout_of(weights).count())) {}

ClipEncoder::ClipEncoder(const Weights& weights, const ClipOptions& options, const HeldBlocks& held)
    : options_(options), path_(weights.file().path()), blocks_(static_cast<std::size_t>(held.count())) {
  const Layout layout = layout_of(weights);
  width_ = layout.weights.shape(layout.tokens).at(1);
  if (width_ % kHeadDim != 0) {
    fail_file(path_, fmt::format("the CLIP encoder's width {} is not a multiple of {}", width_, kHeadDim),
              "only heads of 64 are known");
  }
  MGPU_CHECK_EQ(held.count(), layout.count());
  depth_ = layout.depth();
  head_ = held.head();
  if (held.stem()) {
    tokens_ = layout.weights.get(layout.tokens);
    positions_ = layout.weights.get(layout.positions);
  }
  for (int i = 0; i < held.count(); ++i) {
    if (!held.has(i)) continue;
    const HeldBlocks::Loading loading(held, i);
    blocks_[static_cast<std::size_t>(i)] = layout.load(held.weights_of(i, layout.weights).at(layout.layer(i)));
  }
  if (!head_) return;
  // SDXL reads CLIP-L without it, and files leave it out.
  if (layout.weights.has(std::string(layout.final_norm) + ".weight"))
    final_norm_ = wide(layout.weights.norm(layout.final_norm));
  if (options_.project_pooled) projection_ = load_projection(weights);
}

ClipEncoder::Block ClipEncoder::load_transformers(const Weights& layer) {
  return {.norm1 = wide(layer.norm("layer_norm1")),
          .norm2 = wide(layer.norm("layer_norm2")),
          .q = wide_bias(layer.linear("self_attn.q_proj")),
          .k = wide_bias(layer.linear("self_attn.k_proj")),
          .v = wide_bias(layer.linear("self_attn.v_proj")),
          .out = wide_bias(layer.linear("self_attn.out_proj")),
          .fc1 = wide_bias(layer.linear("mlp.fc1")),
          .fc2 = wide_bias(layer.linear("mlp.fc2"))};
}

ClipEncoder::Block ClipEncoder::load_open_clip(const Weights& layer) {
  const Linear qkv = wide_bias(layer.linear("attn.in_proj_weight", "attn.in_proj_bias"));
  const std::int64_t width = qkv.weight.size(1);
  return {.norm1 = wide(layer.norm("ln_1")),
          .norm2 = wide(layer.norm("ln_2")),
          .q = rows(qkv, 0, width),
          .k = rows(qkv, width, width),
          .v = rows(qkv, 2 * width, width),
          .out = wide_bias(layer.linear("attn.out_proj")),
          .fc1 = wide_bias(layer.linear("mlp.c_fc")),
          .fc2 = wide_bias(layer.linear("mlp.c_proj"))};
}

std::vector<at::Tensor*> ClipEncoder::block_tensors(int index) {
  std::optional<Block>& block = blocks_.at(static_cast<std::size_t>(index));
  MGPU_CHECK(block, "CLIP's block {} is not held", index);
  std::vector<at::Tensor*> out;
  for (Norm* norm : {&block->norm1, &block->norm2}) append_tensors(*norm, out);
  for (Linear* linear : {&block->q, &block->k, &block->v, &block->out, &block->fc1, &block->fc2})
    append_tensors(*linear, out);
  return out;
}

ClipEncoder::State ClipEncoder::embed(const at::Tensor& ids, ClipLayer read, const at::Tensor& vectors) const {
  MGPU_CHECK(tokens_.defined(), "CLIP's first block is not held");
  MGPU_CHECK(ids.size(1) <= positions_.size(0), "{} tokens for {} positions", ids.size(1), positions_.size(0));
  const std::int64_t from_first = read.layer < 0 ? read.layer + depth_ : read.layer;
  if (from_first < 0 || from_first >= depth_) {
    fail_file(path_, fmt::format("the CLIP encoder has {} layers, and layer {} was asked for", depth_, read.layer),
              "a clip_skip that passes the first layer cannot be rendered");
  }
  read.layer = from_first;
  const at::Tensor x = embed_tokens(tokens_, ids, path_, vectors) + positions_.narrow(0, 0, ids.size(1)).to(at::kFloat);
  return {ids, x, {}, read};
}

void ClipEncoder::block(int index, State& state, const Ops& ops) const {
  const std::optional<Block>& held = blocks_.at(static_cast<std::size_t>(index));
  MGPU_CHECK(held, "CLIP's block {} is not held", index);
  const Block& b = *held;
  const at::Tensor normed = layer_norm(state.x, b.norm1);
  const at::Tensor attended =
      ops.attention(split_heads(ops.linear_col(normed, b.q)), split_heads(ops.linear_col(normed, b.k)),
                    split_heads(ops.linear_col(normed, b.v)), {.scale = 0.0, .causal = true, .bias = {}});
  const at::Tensor x = state.x + ops.linear_row(attended.transpose(1, 2).flatten(2), b.out);
  at::Tensor inner = ops.linear_col(layer_norm(x, b.norm2), b.fc1);
  inner = options_.quick_gelu ? inner * elementwise::sigmoid(inner * 1.702) : elementwise::gelu(inner);
  state.x = x + ops.linear_row(inner, b.fc2);
  if (index == state.read.layer) state.hidden = state.x;
}

ClipOutput ClipEncoder::finish(const State& state, const Ops& ops) const {
  MGPU_CHECK(head_, "CLIP's last block is not held");
  ClipOutput out;
  const bool has_norm = final_norm_.weight.defined(), is_whole = blocks() == depth_;
  const at::Tensor last = has_norm ? layer_norm(state.x, final_norm_) : at::Tensor();
  if (has_norm && is_whole) {
    const at::Tensor end = state.ids.to(last.device()).eq(options_.end).to(at::kInt).argmax(1);  // the first of equals
    out.pooled = last.index({at::arange(last.size(0), end.options()), end});
    if (projection_.weight.defined()) out.pooled = ops.linear_col(out.pooled, projection_);
  }
  if (!state.hidden.defined()) {
    MGPU_CHECK(!is_whole, "CLIP's hidden state was not kept");
    fail_file(path_, fmt::format("its layer {} was asked for, and the file holds {} of the encoder's {} layers",
                                 state.read.layer, blocks(), depth_));
  }
  if (!state.read.norm) {
    out.hidden = state.hidden;
    return out;
  }
  if (!has_norm) fail_file(path_, "the encoder's final norm was asked for, and the file lacks it");
  out.hidden = state.read.layer + 1 == blocks() ? last : layer_norm(state.hidden, final_norm_);
  return out;
}

ClipOutput ClipEncoder::forward(const at::Tensor& ids, const Ops& ops, const ClipLayer& read,
                                const at::Tensor& vectors) const {
  State state = embed(ids, read, vectors);
  for (int i = 0; i < blocks(); ++i) block(i, state, ops);
  return finish(state, ops);
}

}  // namespace mgpu
