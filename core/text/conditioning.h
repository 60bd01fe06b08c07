#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "core/ops.h"
#include "core/text/clip_encoder.h"
#include "core/text/clip_tokenizer.h"
#include "core/text/t5_encoder.h"
#include "core/text/t5_tokenizer.h"

namespace mgpu {

/// What a diffusion model is told of a prompt. Flux: context from T5, pooled from CLIP-L.
/// ComfyUI never repeats or pads Flux's context to another prompt's length: prompts of unequal lengths are separate
/// model calls.
struct Conditioning {
  at::Tensor context;  ///< [1, N, C] fp32
  at::Tensor pooled;   ///< [1, V] fp32
};

/// Moves each token's state z [1, N, C] away from the empty prompt's by its weight: (z - empty) * weight + empty.
/// Tokens of weight 1 keep their bits. Reference: comfy/sd1_clip.py (ClipTokenWeightEncoder).
at::Tensor apply_weights(const at::Tensor& z, const at::Tensor& empty, const Chunk& tokens);

/// Token ids [1, N] int64 on the CPU.
at::Tensor token_ids(const Chunk& tokens);

/// A prompt through CLIP: hidden [1, 77 * chunks, C] weighted, pooled [1, C] of the first chunk, unweighted. `rule` is
/// the tokenizer's chunks(), with the family's padding. The encoder's end token must be the tokenizer's.
ClipOutput encode_clip(std::string_view prompt, const ClipTokenizer& tokenizer, const ChunkRule& rule,
                       const ClipEncoder& encoder, const Ops& ops);

/// A prompt through T5: [1, N, C], N at least rule.shortest, weighted.
at::Tensor encode_t5(std::string_view prompt, const T5Tokenizer& tokenizer, const ChunkRule& rule,
                     const T5Encoder& encoder, const Ops& ops);

}  // namespace mgpu
