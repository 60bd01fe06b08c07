#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <vector>

#include "core/text/prompt.h"
#include "core/text/recipe.h"

namespace mgpu {

/// What a diffusion model is told of a prompt.
/// ComfyUI never repeats or pads Flux's context to another prompt's length: prompts of unequal lengths are separate
/// model calls.
struct Conditioning {
  at::Tensor context;  ///< [1, N, C] fp32
  at::Tensor pooled;   ///< [1, V] fp32; undefined for a family that takes none
};

/// What one encoder makes of a prompt, both in fp32.
struct EncodedText {
  at::Tensor hidden;  ///< [1, N, C]
  at::Tensor pooled;  ///< [1, V], or undefined: T5 has none
};

/// Moves each token's state z [1, N, C] away from the empty prompt's by its weight: (z - empty) * weight + empty.
/// Tokens of weight 1 keep their bits. Reference: comfy/sd1_clip.py (ClipTokenWeightEncoder).
at::Tensor apply_weights(const at::Tensor& z, const at::Tensor& empty, const Chunk& tokens);

/// An encoder's run over one chunk.
using EncodeChunk = std::function<EncodedText(const Chunk& chunk)>;

/// A prompt's chunks through an encoder: hidden states one after another, weighted; pooled of the first chunk,
/// unweighted. `rule` is the one that the chunks were made with.
EncodedText encode_chunks(std::span<const Chunk> chunks, const ChunkRule& rule, const EncodeChunk& encode);

/// Puts together what the recipe's encoders gave for a prompt, in the recipe's order: contexts side by side on the
/// channels, cut to the shortest (textual inversions may take more places in one encoder than in another).
Conditioning assemble(const TextRecipe& recipe, std::span<const EncodedText> texts);

}  // namespace mgpu
