#include <algorithm>

#include "core/need_parts.h"
#include "core/text/t5_model.h"
#include "core/text/t5_sizes.h"

namespace mgpu {
namespace {

std::size_t size(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

/// encoder_activation() on a CPU, whose attention keeps no scores: the gated MLP's product beside attention's bias, or
/// that bias in the making (64-bit distances, or as it is looked up).
std::uint64_t activation_on_cpu(std::uint64_t tokens, std::uint64_t hidden, std::uint64_t mlp, std::uint64_t heads) {
  const std::uint64_t pairs = tokens * tokens * kFp32;
  const std::uint64_t attention = tokens * 7 * hidden * kFp32 + attention_scratch(hidden / heads);
  const std::uint64_t mlps = (hidden * mlp + tokens * (5 * hidden + 3 * mlp)) * kFp32;
  return std::max({mlps + heads * pairs, attention + heads * pairs, 16 * pairs, (2 + 2 * heads) * pairs});
}

}  // namespace

ComponentNeed T5Model::need(const Part& part, const EncoderUse&, at::ScalarType dtype,
                            const LargestPicture& picture) const {
  const auto& t5 = part.as<T5Sizes>();
  BlockNeed layers = blocks_below("layer", t5.layers, part, "encoder.block.", dtype);
  // It lies in the first block by name; what is read from it travels from block to block.
  const std::uint64_t positions =
      bytes_below(part, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.", dtype);
  layers.bytes_each.front() -= positions;
  layers.bytes -= positions;
  const std::uint64_t text = size(tokens(picture)), hidden = size(t5.hidden), mlp = size(t5.mlp);
  return encoder_need(key(), part, dtype, std::move(layers), bytes_below(part, t5.embedding, dtype) + positions,
                      bytes_below(part, "encoder.final_layer_norm.", dtype),
                      encoder_activation(text, hidden, mlp, size(t5.heads)),
                      activation_on_cpu(text, hidden, mlp, size(t5.heads)));
}

}  // namespace mgpu
