#include "core/text/t5_encoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/text/embedding.h"

namespace mgpu {
namespace {

constexpr double kEps = 1e-6;
constexpr double kFarthest = 128;  // distances from here on share a bucket

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight) {
  return weight * (x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + kEps));
}

/// Bucket of a key `distance` after a query. Half of the buckets are for keys after the query; of each half the first
/// half are single distances, the rest grow logarithmically.
std::int64_t relative_bucket(std::int64_t distance, std::int64_t buckets) {
  const std::int64_t half = buckets / 2, exact = half / 2, side = distance > 0 ? half : 0, length = std::abs(distance);
  if (length < exact) return side + length;
  // Each value rounded to fp32 and in this order, since a rounding may move a distance to the next bucket.
  const auto share = static_cast<float>(std::log(static_cast<double>(length) / static_cast<double>(exact)));
  const float scaled =
      share / static_cast<float>(std::log(kFarthest / static_cast<double>(exact))) * static_cast<float>(half - exact);
  return side + std::min(exact + static_cast<std::int64_t>(scaled), half - 1);
}

/// Bucket of each key's distance from each query, [n, n] int64.
at::Tensor relative_buckets(std::int64_t n, std::int64_t buckets) {
  const at::Tensor by_distance = at::empty({2 * n - 1}, at::kLong);  // from -(n - 1)
  auto* bucket = by_distance.mutable_data_ptr<std::int64_t>();
  for (std::int64_t distance = 1 - n; distance < n; ++distance) *bucket++ = relative_bucket(distance, buckets);
  const at::Tensor place = at::arange(n, at::kLong);
  return at::take(by_distance, place.unsqueeze(0) - place.unsqueeze(1) + (n - 1));
}

const char* token_table(const Weights& weights) {
  return weights.has("shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
}

/// How many blocks the file has; of one that has none the first is missing.
int blocks_in(const Weights& weights) {
  int count = 1;
  while (weights.has(fmt::format("encoder.block.{}.layer.0.SelfAttention.q.weight", count))) ++count;
  return count;
}

}  // namespace

T5Encoder::T5Encoder(const Weights& weights) : T5Encoder(weights, HeldBlocks::all(blocks_in(weights))) {}

T5Encoder::T5Encoder(const Weights& weights, const HeldBlocks& held)
    : path_(weights.file().path()),
      width_(weights.shape(token_table(weights)).at(1)),
      blocks_(static_cast<std::size_t>(held.count())) {
  MGPU_CHECK_EQ(held.count(), blocks_in(weights));
  if (held.stem()) {
    tokens_ = weights.get(token_table(weights));
    position_bias_ = weights.get("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight").to(at::kFloat);
  }
  for (int i = 0; i < held.count(); ++i) {
    if (!held.has(i)) continue;
    const HeldBlocks::Loading loading(held, i);
    blocks_[static_cast<std::size_t>(i)] = load_block(held.weights_of(i, weights), i);
  }
  if (held.head()) final_norm_ = weights.get("encoder.final_layer_norm.weight").to(at::kFloat);
}

T5Encoder::Block T5Encoder::load_block(const Weights& weights, int index) {
  const auto norm = [](const Weights& part) { return part.get("layer_norm.weight").to(at::kFloat); };
  const Weights attention = weights.at(fmt::format("encoder.block.{}.layer.0", index));
  const Weights mlp = weights.at(fmt::format("encoder.block.{}.layer.1", index));
  return {.attention_norm = norm(attention),
          .mlp_norm = norm(mlp),
          .q = attention.linear("SelfAttention.q"),
          .k = attention.linear("SelfAttention.k"),
          .v = attention.linear("SelfAttention.v"),
          .o = attention.linear("SelfAttention.o"),
          .wi_0 = mlp.linear("DenseReluDense.wi_0"),
          .wi_1 = mlp.linear("DenseReluDense.wi_1"),
          .wo = mlp.linear("DenseReluDense.wo")};
}

std::vector<at::Tensor*> T5Encoder::block_tensors(int index) {
  std::optional<Block>& block = blocks_.at(static_cast<std::size_t>(index));
  MGPU_CHECK(block, "T5's block {} is not held", index);
  std::vector<at::Tensor*> out = {&block->attention_norm, &block->mlp_norm};
  for (Linear* linear : {&block->q, &block->k, &block->v, &block->o, &block->wi_0, &block->wi_1, &block->wo})
    append_tensors(*linear, out);
  return out;
}

T5Encoder::State T5Encoder::embed(const at::Tensor& ids, const at::Tensor& vectors) const {
  MGPU_CHECK(tokens_.defined(), "T5's first block is not held");
  const at::Tensor buckets = relative_buckets(ids.size(1), position_bias_.size(0)).to(position_bias_.device());
  const at::Tensor bias = at::embedding(position_bias_, buckets).permute({2, 0, 1}).unsqueeze(0).contiguous();
  return {embed_tokens(tokens_, ids, path_, vectors), bias};
}

void T5Encoder::block(int index, State& state, const Ops& ops) const {
  const std::optional<Block>& held = blocks_.at(static_cast<std::size_t>(index));
  MGPU_CHECK(held, "T5's block {} is not held", index);
  const Block& b = *held;
  const std::int64_t heads = state.bias.size(1);
  const auto split_heads = [heads](const at::Tensor& x) { return x.unflatten(-1, {heads, -1}).transpose(1, 2); };
  at::Tensor normed = rms_norm(state.x, b.attention_norm);
  const at::Tensor attended =
      ops.attention(split_heads(ops.linear_col(normed, b.q)), split_heads(ops.linear_col(normed, b.k)),
                    split_heads(ops.linear_col(normed, b.v)), {.scale = 1.0, .causal = false, .bias = state.bias});
  state.x = state.x + ops.linear_row(attended.transpose(1, 2).flatten(2), b.o);
  normed = rms_norm(state.x, b.mlp_norm);
  const at::Tensor gate = elementwise::gelu_tanh(ops.linear_col(normed, b.wi_0));
  state.x = state.x + ops.linear_row(gate * ops.linear_col(normed, b.wi_1), b.wo);
}

at::Tensor T5Encoder::finish(const State& state) const {
  MGPU_CHECK(final_norm_.defined(), "T5's last block is not held");
  return rms_norm(state.x, final_norm_);
}

at::Tensor T5Encoder::forward(const at::Tensor& ids, const Ops& ops, const at::Tensor& vectors) const {
  State state = embed(ids, vectors);
  for (int i = 0; i < blocks(); ++i) block(i, state, ops);
  return finish(state);
}

}  // namespace mgpu
