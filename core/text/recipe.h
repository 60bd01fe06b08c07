#pragma once

#include <cstdint>
#include <span>

namespace mgpu {

class TextEncoderModel;

/// What a family takes from one of its encoders.
struct EncoderUse {
  /// The state at the end token, from the last layer and normed, as it is or times text_projection.
  enum class Pooled : std::uint8_t { None, State, Projected };

  const TextEncoderModel* encoder = nullptr;
  bool context = true;      ///< its hidden states are the context, or a part of its channels
  std::int64_t layer = -1;  ///< whose output is the hidden state; negative ones count from the last
  bool norm_layer = true;   ///< the final norm is applied to the hidden state
  Pooled pooled = Pooled::None;
  std::int64_t shortest = 77;  ///< tokens a chunk is padded to; T5's one chunk may be longer
};

/// How a family is told of a prompt: one row of data a family. Reference: ComfyUI (comfy/sd1_clip.py, sdxl_clip.py,
/// text_encoders/sd2_clip.py, text_encoders/flux.py).
struct TextRecipe {
  std::span<const EncoderUse> encoders;  ///< in the order in which their channels lie in the context
  bool breaks = true;                    ///< BREAK ends a chunk; else it is a word like others
};

extern const TextRecipe kSd1Text, kSd2Text, kSdxlText, kSdxlRefinerText, kFluxText;

/// The layer to read under a job's clip_skip: 0 the family's own, 1 the last and 2 the last but one as A1111 counts, -1
/// and -2 the same as ComfyUI's stop_at_clip_layer counts.
std::int64_t layer_under(const EncoderUse& use, std::int64_t clip_skip);

}  // namespace mgpu
