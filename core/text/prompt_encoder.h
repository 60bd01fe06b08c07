#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/ops.h"
#include "core/text/conditioning.h"
#include "core/text/recipe.h"
#include "core/text/textual_inversion.h"
#include "core/weights.h"

namespace mgpu {

/// One of a family's text encoders, loaded, with its tokenizer.
class PromptEncoder {
 public:
  virtual ~PromptEncoder() = default;

  /// What a family takes from this encoder for a prompt, to be put together by assemble(). `clip_skip` as layer_under()
  /// reads it. Throws Error (exit 2) for a layer that the encoder lacks and for textual inversions that are not there.
  virtual EncodedText encode(std::string_view prompt, std::int64_t clip_skip, const Ops& ops) const = 0;
};

/// Loads the encoder at `index` of the recipe. `weights`: where its tensors lie (ClipEncoder, T5Encoder); `tokenizer`:
/// CLIP's merges or T5's sentencepiece model; `inversions` must outlive the encoder.
std::unique_ptr<PromptEncoder> load_prompt_encoder(const TextRecipe& recipe, std::size_t index, const Weights& weights,
                                                   const std::string& tokenizer, const TextualInversions& inversions);

}  // namespace mgpu
