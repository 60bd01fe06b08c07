#include "core/models/unet.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/nn.h"

namespace mgpu {
namespace {

constexpr double kNormEps = 1e-5;

std::size_t index_of(int i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

std::vector<UNetBlockName> unet_blocks(const UNetSizes& sizes) {
  std::vector<UNetBlockName> names;
  const int depth = static_cast<int>(sizes.down.size());
  for (int i = 0; i < depth; ++i) names.push_back({"down", i, std::nullopt});
  if (sizes.middle_residuals > 0) names.push_back({"middle", 0, std::nullopt});
  for (int i = 0; i < depth; ++i) names.push_back({"up", i, sizes.skip_of(i)});
  return names;
}

UNet::Mlp UNet::load_mlp(const Weights& weights, const char* in, const char* out) {
  return {weights.linear(in), weights.linear(out)};
}

void UNet::load_transformer(Block& out, const BlockWeights& block, int depth, int channels) const {
  if (depth > 0) out.transformer.emplace(block.at("1"), depth, sizes_.heads(channels));
}

UNet::Block UNet::load_down(const BlockWeights& block, std::size_t number) const {
  const UNetBlockSizes& sizes = sizes_.down[number];
  Block out;
  if (number == 0) {
    out.conv = load_conv3x3(block.weights, "0");
  } else if (sizes.resamples) {
    out.conv = load_conv3x3(block.weights, "0.op");
  } else {
    out.residuals.emplace_back(block.weights.at("0"));
    load_transformer(out, block, sizes.depth, sizes.out);
  }
  return out;
}

UNet::Block UNet::load_middle(const BlockWeights& block) const {
  Block out;
  out.residuals.emplace_back(block.weights.at("0"));
  load_transformer(out, block, sizes_.depth_middle, sizes_.down.back().out);
  if (sizes_.middle_residuals > 1) out.residuals.emplace_back(block.weights.at("2"));
  return out;
}

UNet::Block UNet::load_up(const BlockWeights& block, std::size_t number) const {
  const UNetBlockSizes& sizes = sizes_.up[number];
  Block out;
  out.residuals.emplace_back(block.weights.at("0"));
  load_transformer(out, block, sizes.depth, sizes.out);
  if (sizes.resamples) out.conv = load_conv3x3(block.weights, sizes.depth > 0 ? "2.conv" : "1.conv");
  return out;
}

UNet::UNet(const UNetSizes& sizes, const Weights& weights)
    : UNet(sizes, weights, HeldBlocks::all(static_cast<int>(unet_blocks(sizes).size()))) {}

UNet::UNet(const UNetSizes& sizes, const Weights& weights, const HeldBlocks& held)
    : sizes_(sizes), dtype_(weights.dtype()), device_(weights.device()), names_(unet_blocks(sizes)) {
  if (held.stem()) {
    time_in_ = load_mlp(weights, "time_embed.0", "time_embed.2");
    if (sizes.vector > 0) vector_in_ = load_mlp(weights, "label_emb.0.0", "label_emb.0.2");
  }
  if (held.head()) {
    norm_out_ = weights.norm("out.0");
    conv_out_ = load_conv3x3(weights, "out.2");
  }
  std::size_t attentions = 0;
  for (int i = 0; i < block_count(); ++i) {
    std::optional<Block>& block = blocks_.emplace_back();
    if (!held.has(i)) continue;
    const HeldBlocks::Loading loading(held, i);
    block = load_block(held.block_weights(i, weights), names_[index_of(i)]);
    block->first_attention = attentions;
    if (block->transformer) attentions += index_of(block->transformer->depth());
  }
}

UNet::Block UNet::load_block(const BlockWeights& weights, const UNetBlockName& name) const {
  const std::size_t number = index_of(name.number);
  if (name.kind == "down") return load_down(weights.at(fmt::format("input_blocks.{}", number)), number);
  if (name.kind == "up") return load_up(weights.at(fmt::format("output_blocks.{}", number)), number);
  return load_middle(weights.at("middle_block"));
}

std::vector<at::Tensor*> UNet::block_tensors(int index) {
  Block& block = *blocks_.at(index_of(index));
  std::vector<at::Tensor*> out;
  for (UNetResidual& residual : block.residuals) residual.append_tensors(out);
  if (block.transformer) block.transformer->append_tensors(out);
  append_tensors(block.conv, out);
  return out;
}

UNetText UNet::text(const at::Tensor& context, const Ops& ops) const {
  const at::Tensor states = context.to(device_, dtype_);
  UNetText text;
  for (const std::optional<Block>& block : blocks_)
    if (block && block->transformer) block->transformer->append_text(states, text.attention, ops);
  return text;
}

UNetState UNet::begin(const at::Tensor& x, double timestep, const at::Tensor& vector, const Ops& ops) const {
  MGPU_CHECK(x.dim() == 4 && x.size(0) == 1 && x.size(1) == sizes_.channels_in, "latent {} is not [1, {}, h, w]",
             fmt::join(x.sizes(), "x"), sizes_.channels_in);
  MGPU_CHECK_EQ(vector.defined(), sizes_.vector > 0);
  MGPU_CHECK(time_in_.in.weight.defined(), "the first block is not held");
  const auto embed = [&](const Mlp& mlp, const at::Tensor& values) {
    return ops.linear_row(elementwise::silu(ops.linear_col(values, mlp.in)), mlp.out);
  };
  const at::Tensor time = sinusoidal_embedding({timestep}, sizes_.model_channels);
  at::Tensor emb = embed(time_in_, time.to(device_, dtype_));
  if (vector.defined()) emb = emb + embed(vector_in_, vector.to(device_, dtype_));

  UNetState state;
  state.h = x.to(device_, dtype_).contiguous(at::MemoryFormat::ChannelsLast);
  state.emb = elementwise::silu(emb);
  state.skips.resize(sizes_.down.size());
  UNetState::Extent extent{x.size(2), x.size(3)};
  for (const UNetBlockSizes& down : sizes_.down) {
    if (down.resamples) extent = {(extent.rows + 1) / 2, (extent.columns + 1) / 2};
    state.extents.push_back(extent);
  }
  return state;
}

void UNet::block(int index, UNetState& state, const Ops& ops) const {
  const UNetBlockName& name = names_[index_of(index)];
  MGPU_CHECK(blocks_[index_of(index)], "{} block {} is not held", name.kind, name.number);
  const Block& block = *blocks_[index_of(index)];
  if (name.kind == "down") {
    run_down(name.number, block, state, ops);
  } else if (name.kind == "up") {
    run_up(name.number, block, state, ops);
  } else {
    run_layers(block, state, ops);
  }
}

void UNet::run_layers(const Block& block, UNetState& state, const Ops& ops) const {
  at::Tensor& h = state.h;
  h = block.residuals.front().forward(h, state.emb, ops);
  if (block.transformer) {
    const auto text = std::span(state.text->attention).subspan(block.first_attention);
    h = block.transformer->forward(h, text.first(index_of(block.transformer->depth())), ops);
  }
  if (block.residuals.size() > 1) h = block.residuals.back().forward(h, state.emb, ops);
}

void UNet::run_down(int number, const Block& block, UNetState& state, const Ops& ops) const {
  if (block.residuals.empty()) {
    state.h = ops.conv3x3(state.h, block.conv, sizes_.down[index_of(number)].resamples ? 2 : 1);
  } else {
    run_layers(block, state, ops);
  }
  state.skips[index_of(number)] = state.h;
}

void UNet::run_up(int number, const Block& block, UNetState& state, const Ops& ops) const {
  at::Tensor& skip = state.skips[index_of(sizes_.skip_of(number))];
  state.h = at::cat({state.h, skip}, 1);
  skip = at::Tensor();
  run_layers(block, state, ops);
  if (!block.conv.weight.defined()) return;
  // To the size of the next skip, which is not the double of this one where that was odd.
  const UNetState::Extent& next = state.extents[index_of(sizes_.skip_of(number + 1))];
  state.h = ops.conv3x3(at::upsample_nearest2d(state.h, {next.rows, next.columns}), block.conv);
}

at::Tensor UNet::finish(const UNetState& state, const Ops& ops) const {
  const at::Tensor normal = ops.group_norm(state.h, norm_out_, kNormEps);
  elementwise::silu_(normal);
  return ops.conv3x3(normal, conv_out_);
}

at::Tensor UNet::forward(const at::Tensor& x, double timestep, const at::Tensor& context, const at::Tensor& vector,
                         const Ops& ops) const {
  const UNetText words = text(context, ops);
  UNetState state = begin(x, timestep, vector, ops);
  state.text = &words;
  for (int i = 0; i < block_count(); ++i) block(i, state, ops);
  return finish(state, ops).to(x.scalar_type()).contiguous();
}

}  // namespace mgpu
