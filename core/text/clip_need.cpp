#include <algorithm>

#include "core/need_parts.h"
#include "core/text/clip_model.h"
#include "core/text/clip_sizes.h"

namespace mgpu {
namespace {

std::size_t size(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

/// encoder_activation() on a CPU, whose attention keeps no scores: the widest point is the product of the GELU.
std::uint64_t activation_on_cpu(std::uint64_t tokens, std::uint64_t hidden, std::uint64_t mlp, std::uint64_t heads) {
  const std::uint64_t attention = tokens * 7 * hidden * kFp32 + attention_scratch(hidden / heads);
  const std::uint64_t mlps = (hidden * mlp + tokens * (5 * hidden + 4 * mlp)) * kFp32;
  return std::max(mlps, attention);
}

}  // namespace

ComponentNeed ClipModel::need(const Part& part, const EncoderUse& use, at::ScalarType dtype,
                              const LargestPicture&) const {
  const auto& clip = part.as<ClipSizes>();
  const bool projects = use.pooled == EncoderUse::Pooled::Projected;
  // "text_model.encoder.layers." lies beside "text_model.embeddings."; OpenCLIP's layout is flat.
  const std::size_t level = clip.layers_prefix.find("encoder.layers.");
  const bool is_open_clip = level == std::string::npos;
  const std::string model = is_open_clip ? "" : clip.layers_prefix.substr(0, level);
  const auto below = [&](std::string_view names) { return bytes_below(part, names, dtype); };
  const std::uint64_t stem =
      is_open_clip ? below("token_embedding.") + below("positional_embedding")
                   : below(model + "embeddings.token_embedding.") + below(model + "embeddings.position_embedding.");
  const std::uint64_t tokens = size(clip.positions), hidden = size(clip.hidden), mlp = size(clip.mlp);
  return encoder_need(
      key(), part, dtype, blocks_below("layer", clip.layers, part, clip.layers_prefix, dtype), stem,
      below(is_open_clip ? "ln_final." : model + "final_layer_norm.") + (projects ? below("text_projection") : 0),
      encoder_activation(tokens, hidden, mlp, size(clip.heads)),
      activation_on_cpu(tokens, hidden, mlp, size(clip.heads)));
}

}  // namespace mgpu
