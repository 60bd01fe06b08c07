#include "core/models/flux.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/stop_point.h"

namespace mgpu {
namespace {

constexpr std::int64_t kPatch = 2;
constexpr std::int64_t kAxes[] = {16, 56, 56};  // head dimensions turned by: nothing (text index), row, column
constexpr double kTheta = 10000.0;
constexpr std::int64_t kTimeChannels = 256;
constexpr std::int64_t kHeadDim = 128;

/// [1, C, h, w] -> [1, h/2 * w/2, C * 4], channels slowest within a token.
at::Tensor patchify(const at::Tensor& x) {
  const std::int64_t c = x.size(1), rows = x.size(2) / kPatch, columns = x.size(3) / kPatch;
  return x.view({1, c, rows, kPatch, columns, kPatch})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({1, rows * columns, c * kPatch * kPatch});
}

at::Tensor unpatchify(const at::Tensor& tokens, std::int64_t rows, std::int64_t columns) {
  const std::int64_t c = tokens.size(2) / (kPatch * kPatch);
  return tokens.view({1, rows, columns, c, kPatch, kPatch})
      .permute({0, 3, 1, 4, 2, 5})
      .reshape({1, c, rows * kPatch, columns * kPatch});
}

/// Positions (0, row, column) of the image's tokens behind the text's, which all stand at (0, 0, 0).
at::Tensor positions(std::int64_t text_tokens, std::int64_t rows, std::int64_t columns) {
  const at::Tensor ids = at::zeros({text_tokens + rows * columns, 3}, at::kLong);
  const at::Tensor image = ids.narrow(0, text_tokens, rows * columns).view({rows, columns, 3});
  image.select(2, 1).copy_(at::arange(rows, ids.options()).unsqueeze(1));
  image.select(2, 2).copy_(at::arange(columns, ids.options()).unsqueeze(0));
  return ids;
}

struct Triple {
  at::Tensor shift, scale, gate;
};

/// The `part`-th (shift, scale, gate) of a modulation vector.
Triple triple(const at::Tensor& modulation, std::int64_t hidden, std::int64_t part) {
  const auto piece = [&](std::int64_t i) { return modulation.narrow(-1, (3 * part + i) * hidden, hidden); };
  return {piece(0), piece(1), piece(2)};
}

/// [B, H, N, D] -> [B, N, H * D]
at::Tensor merge_heads(const at::Tensor& x) {
  return x.transpose(1, 2).flatten(-2);
}

}  // namespace

Flux::Mlp Flux::load_mlp(const Weights& weights, const char* in, const char* out) {
  return {weights.linear(in), weights.linear(out)};
}

Flux::Stream Flux::load_stream(const BlockWeights& block, const std::string& name) {
  const std::string attention = name + "_attn.";
  const Weights& weights = block.weights;
  return {weights.linear(attention + "qkv"),
          weights.linear(attention + "proj"),
          weights.get(attention + "norm.query_norm.scale"),
          weights.get(attention + "norm.key_norm.scale"),
          {weights.linear(name + "_mlp.0"), weights.linear(name + "_mlp.2")},
          block.precomputed(name + "_mod.lin")};
}

Flux::SingleBlock Flux::load_single(const BlockWeights& block) {
  const Weights& weights = block.weights;
  return {weights.linear("linear1"), weights.linear("linear2"), weights.get("norm.query_norm.scale"),
          weights.get("norm.key_norm.scale"), block.precomputed("modulation.lin")};
}

Flux::Flux(const FluxSizes& sizes, const Weights& weights)
    : Flux(sizes, weights, HeldBlocks::all(sizes.depth + sizes.depth_single)) {}

Flux::Flux(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held)
    : sizes_(sizes),
      dtype_(weights.dtype()),
      device_(weights.device()),
      time_in_(load_mlp(weights, "time_in.in_layer", "time_in.out_layer")),
      vector_in_(load_mlp(weights, "vector_in.in_layer", "vector_in.out_layer")),
      doubles_(static_cast<std::size_t>(sizes.depth)),
      singles_(static_cast<std::size_t>(sizes.depth_single)) {
  if (sizes.guidance) guidance_in_ = load_mlp(weights, "guidance_in.in_layer", "guidance_in.out_layer");
  if (held.stem()) {
    image_in_ = weights.linear("img_in");
    text_in_ = weights.linear("txt_in");
  }
  if (held.head()) {
    last_modulation_ = weights.linear("final_layer.adaLN_modulation.1");
    last_ = weights.linear("final_layer.linear");
  }
  for (int i = 0; i < sizes.depth; ++i) {
    if (!held.has(i)) continue;
    const HeldBlocks::Loading loading(held, i);
    const BlockWeights block = held.block_weights(i, weights.at(fmt::format("double_blocks.{}", i)));
    doubles_[static_cast<std::size_t>(i)] = {load_stream(block, "img"), load_stream(block, "txt")};
  }
  for (int i = 0; i < sizes.depth_single; ++i) {
    if (!held.has(sizes.depth + i)) continue;
    const HeldBlocks::Loading loading(held, sizes.depth + i);
    singles_[static_cast<std::size_t>(i)] =
        load_single(held.block_weights(sizes.depth + i, weights.at(fmt::format("single_blocks.{}", i))));
  }
}

std::vector<at::Tensor*> Flux::block_tensors(int index) {
  std::vector<at::Tensor*> out;
  if (index >= sizes_.depth) {
    SingleBlock& block = *singles_.at(static_cast<std::size_t>(index - sizes_.depth));
    append_tensors(block.in, out);
    append_tensors(block.out, out);
    out.insert(out.end(), {&block.q_norm, &block.k_norm});
    return out;
  }
  DoubleBlock& block = *doubles_.at(static_cast<std::size_t>(index));
  for (Stream* stream : {&block.image, &block.text}) {
    for (Linear* linear : {&stream->qkv, &stream->proj, &stream->mlp.in, &stream->mlp.out})
      append_tensors(*linear, out);
    out.insert(out.end(), {&stream->q_norm, &stream->k_norm});
  }
  return out;
}

at::Tensor Flux::modulation_input(const FluxSteps& steps, const Ops& ops) const {
  const auto embed = [&](const Mlp& mlp, const at::Tensor& x) {
    return ops.linear_row(elementwise::silu(ops.linear_col(x, mlp.in)), mlp.out);
  };
  const auto sinusoid = [&](std::vector<double> values) {
    for (double& value : values) value = static_cast<float>(value) * 1000.0F;
    return sinusoidal_embedding(values, kTimeChannels).to(device_, dtype_);
  };
  at::Tensor vec = embed(time_in_, sinusoid({steps.sigmas.begin(), steps.sigmas.end()}));
  if (sizes_.guidance) vec = vec + embed(guidance_in_, sinusoid({steps.condition.guidance}));
  return elementwise::silu(vec + embed(vector_in_, steps.condition.pooled.to(device_, dtype_)));
}

std::vector<FluxModulation> Flux::modulate(std::span<const FluxSteps> all, const Ops& ops, const Keep& keep) const {
  std::vector<at::Tensor> inputs;
  std::vector<std::int64_t> steps;
  for (const FluxSteps& own : all) {
    inputs.push_back(modulation_input(own, ops));
    steps.push_back(static_cast<std::int64_t>(own.sigmas.size()));
  }
  FluxModulation nothing;
  nothing.image.resize(doubles_.size());
  nothing.text.resize(doubles_.size());
  nothing.single.resize(singles_.size());
  std::vector<FluxModulation> out(all.size(), nothing);
  // A product each, since how many there are must not change their bits; kept together.
  const auto deal = [&](const Linear& weights, auto&& place) {
    stop_point(device_);
    std::vector<at::Tensor> products;
    for (const at::Tensor& input : inputs) products.push_back(ops.linear_row(input, weights).unsqueeze(1));
    const at::Tensor kept = keep(products.size() == 1 ? products.front() : at::cat(products));
    const std::vector<at::Tensor> rows = kept.split_with_sizes(steps);
    for (std::size_t i = 0; i < out.size(); ++i) place(out[i]) = rows[i];
  };
  for (std::size_t i = 0; i < doubles_.size(); ++i) {
    if (!doubles_[i]) continue;
    deal(doubles_[i]->image.modulation.linear(), [&](FluxModulation& m) -> at::Tensor& { return m.image[i]; });
    deal(doubles_[i]->text.modulation.linear(), [&](FluxModulation& m) -> at::Tensor& { return m.text[i]; });
  }
  for (std::size_t i = 0; i < singles_.size(); ++i) {
    if (singles_[i])
      deal(singles_[i]->modulation.linear(), [&](FluxModulation& m) -> at::Tensor& { return m.single[i]; });
  }
  if (last_.weight.defined()) deal(last_modulation_, [](FluxModulation& m) -> at::Tensor& { return m.last; });
  return out;
}

FluxModulation Flux::modulate(const FluxSteps& steps, const Ops& ops) const {
  return modulate({&steps, 1}, ops, [](const at::Tensor& rows) { return rows; }).front();
}

RotaryTable Flux::rotary(const FluxState& state) const {
  return rotary_table(positions(state.text_tokens, state.rows, state.columns), kAxes, kTheta, device_);
}

FluxState Flux::begin(const at::Tensor& x, const FluxCondition& condition, const Ops& ops) const {
  MGPU_CHECK(x.size(0) == 1 && x.size(1) == sizes_.channels && x.size(2) % kPatch == 0 && x.size(3) % kPatch == 0,
             "latent {} is not [1, {}, even, even]", fmt::join(x.sizes(), "x"), sizes_.channels);
  MGPU_CHECK(image_in_.weight.defined(), "the first block is not held");
  FluxState state;
  state.rows = x.size(2) / kPatch;
  state.columns = x.size(3) / kPatch;
  state.text_tokens = condition.context.size(1);
  state.image = ops.linear_row(patchify(x.to(device_, dtype_)), image_in_);
  state.text = ops.linear_row(condition.context.to(device_, dtype_), text_in_);
  return state;
}

void Flux::block(int index, FluxState& state, const Ops& ops) const {
  const auto i = static_cast<std::size_t>(index);
  if (i < doubles_.size()) {
    MGPU_CHECK(doubles_[i], "double block {} is not held", i);
    run(*doubles_[i], i, state, ops);
    return;
  }
  if (state.text.defined()) {
    state.image = at::cat({state.text, state.image}, 1);
    state.text = at::Tensor();
  }
  const std::size_t single = i - doubles_.size();
  MGPU_CHECK(singles_[single], "single block {} is not held", single);
  run(*singles_[single], single, state, ops);
}

void Flux::run(const DoubleBlock& block, std::size_t index, FluxState& state, const Ops& ops) const {
  const std::int64_t n_text = state.text_tokens;
  const at::Tensor &image_mod = state.modulation->image[index], &text_mod = state.modulation->text[index];
  const Triple ia = triple(image_mod, sizes_.hidden, 0), im = triple(image_mod, sizes_.hidden, 1);
  const Triple ta = triple(text_mod, sizes_.hidden, 0), tm = triple(text_mod, sizes_.hidden, 1);

  const std::int64_t tokens = n_text + state.image.size(1);
  Qkv joint;
  const auto project = [&](const Stream& s, const at::Tensor& x, const Triple& mod, std::int64_t first) {
    const at::Tensor qkv = ops.linear_col(layer_norm_modulate(x, mod.shift, mod.scale), s.qkv);
    // A placement may keep only some heads: their number follows from what the projection returned.
    if (!joint.q.defined()) joint = empty_qkv(qkv, tokens, qkv.size(-1) / (3 * kHeadDim), kHeadDim);
    split_norm_rotate(qkv, s.q_norm, s.k_norm, *state.rotary, first, joint);
  };
  project(block.text, state.text, ta, 0);
  project(block.image, state.image, ia, n_text);
  const at::Tensor mixed = merge_heads(ops.attention(joint.q, joint.k, joint.v));
  joint = {};

  const auto rest = [&](const Stream& s, const at::Tensor& x, const at::Tensor& attention, const Triple& after,
                        const Triple& mlp) {
    const at::Tensor y = gated_add(x, after.gate, ops.linear_row(attention, s.proj));
    const at::Tensor wide = ops.linear_col_gelu(layer_norm_modulate(y, mlp.shift, mlp.scale), s.mlp.in);
    return gated_add(y, mlp.gate, ops.linear_row(wide, s.mlp.out));
  };
  state.text = rest(block.text, state.text, mixed.narrow(1, 0, n_text), ta, tm);
  state.image = rest(block.image, state.image, mixed.narrow(1, n_text, mixed.size(1) - n_text), ia, im);
}

void Flux::run(const SingleBlock& block, std::size_t index, FluxState& state, const Ops& ops) const {
  const Triple mod = triple(state.modulation->single[index], sizes_.hidden, 0);
  const at::Tensor packed = ops.linear_col(layer_norm_modulate(state.image, mod.shift, mod.scale), block.in);
  // Columns: q, k, v, then the MLP's; a placement may keep the same share of each.
  const std::int64_t qkv_width = packed.size(-1) * 3 * sizes_.hidden / (3 * sizes_.hidden + sizes_.mlp);
  Qkv all = empty_qkv(packed, packed.size(1), qkv_width / (3 * kHeadDim), kHeadDim);
  split_norm_rotate(packed.narrow(-1, 0, qkv_width), block.q_norm, block.k_norm, *state.rotary, 0, all);
  const at::Tensor attention = merge_heads(ops.attention(all.q, all.k, all.v));
  all = {};  // before the wide tensors below
  const at::Tensor inner = concat_gelu(attention, packed.narrow(-1, qkv_width, packed.size(-1) - qkv_width));
  state.image = gated_add(state.image, mod.gate, ops.linear_row(inner, block.out));
}

at::Tensor Flux::finish(const FluxState& state, const Ops& ops) const {
  const at::Tensor tokens =
      state.text.defined() ? state.image : state.image.narrow(1, state.text_tokens, state.rows * state.columns);
  const at::Tensor& mod = state.modulation->last;
  const at::Tensor normal =
      layer_norm_modulate(tokens, mod.narrow(-1, 0, sizes_.hidden), mod.narrow(-1, sizes_.hidden, sizes_.hidden));
  return unpatchify(ops.linear_row(normal, last_), state.rows, state.columns);
}

at::Tensor Flux::forward(const at::Tensor& x, double sigma, const FluxCondition& condition, const Ops& ops) const {
  const FluxModulation modulation = modulate({{&sigma, 1}, condition}, ops);
  FluxState state = begin(x, condition, ops);
  const RotaryTable table = rotary(state);
  state.rotary = &table;
  state.modulation = &modulation;
  for (int i = 0; i < block_count(); ++i) block(i, state, ops);
  return finish(state, ops).to(x.scalar_type());
}

}  // namespace mgpu
