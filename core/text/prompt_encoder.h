#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/ops.h"
#include "core/text/conditioning.h"
#include "core/text/encoder_pieces.h"
#include "core/text/recipe.h"
#include "core/text/textual_inversion.h"
#include "core/weights.h"

namespace mgpu {

/// One of a family's text encoders, loaded, with its tokenizer.
class PromptEncoder {
 public:
  virtual ~PromptEncoder() = default;

  /// What a family takes from this encoder for a prompt, to be put together by assemble(). `clip_skip` as layer_under()
  /// reads it. It lies on the device of the encoder's last block. Throws Error (exit 2) for a layer that the encoder
  /// lacks and for textual inversions that are not there.
  virtual EncodedText encode(std::string_view prompt, std::int64_t clip_skip, const Ops& ops) const = 0;
};

/// Loads the encoder at `index` of the recipe in `pieces`, in their blocks' order. `weights`: where its tensors lie
/// (ClipEncoder, T5Encoder), delivered to each piece's device; `tokenizer`: CLIP's merges or T5's sentencepiece model;
/// `inversions` must outlive the encoder. Throws what loading a piece throws.
std::unique_ptr<PromptEncoder> load_prompt_encoder(const TextRecipe& recipe, std::size_t index, const Weights& weights,
                                                   const std::string& tokenizer, const TextualInversions& inversions,
                                                   std::vector<EncoderPiece> pieces);

}  // namespace mgpu
