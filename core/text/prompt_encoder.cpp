#include "core/text/prompt_encoder.h"

#include <ATen/ATen.h>

#include "core/text/clip_encoder.h"
#include "core/text/clip_tokenizer.h"
#include "core/text/t5_encoder.h"
#include "core/text/t5_tokenizer.h"

namespace mgpu {
namespace {

/// A chunk as encoders take it: ids [1, N] int64 on the CPU, those below 0 standing for rows of `vectors`.
struct Tokens {
  at::Tensor ids;
  at::Tensor vectors;  ///< [n, C], or undefined
};

Tokens tokens_of(const Chunk& chunk) {
  const at::Tensor ids = at::empty({1, static_cast<std::int64_t>(chunk.size())}, at::kLong);
  auto* id = ids.data_ptr<std::int64_t>();
  std::vector<at::Tensor> vectors;
  for (const Token& token : chunk) {
    *id++ = token.vector.defined() ? -1 - static_cast<std::int64_t>(vectors.size()) : token.id;
    if (token.vector.defined()) vectors.push_back(token.vector);
  }
  return {ids, vectors.empty() ? at::Tensor() : at::stack(vectors)};
}

class ClipPromptEncoder final : public PromptEncoder {
 public:
  ClipPromptEncoder(const EncoderUse& use, bool breaks, const Weights& weights, const std::string& merges,
                    const TextualInversions& inversions, std::vector<EncoderPiece> pieces)
      : use_(use),
        tokenizer_(merges),
        encoder_(std::move(pieces),
                 [&](const EncoderPiece& piece) {
                   const ClipOptions options{.end = tokenizer_.end(),
                                             .quick_gelu = use.encoder == TextEncoder::ClipL,
                                             .project_pooled = use.pooled == EncoderUse::Pooled::Projected};
                   return std::make_unique<ClipEncoder>(weights.on(piece.device), options, piece.held);
                 }),
        rule_(tokenizer_.chunks(use.encoder == TextEncoder::ClipL ? tokenizer_.end() : 0)),
        inversions_(inversions) {
    rule_.breaks = breaks;
  }

  EncodedText encode(std::string_view prompt, std::int64_t clip_skip, const Ops& ops) const override {
    const ClipLayer layer{.layer = layer_under(use_, clip_skip), .norm = use_.norm_layer};
    const std::vector<Chunk> chunks = tokenize(
        prompt, [&](std::string_view text) { return tokenizer_.encode(text); }, rule_,
        [&](std::string_view name) { return inversions_.vectors(name, use_.encoder, encoder_.width()); });
    return encode_chunks(chunks, rule_, [&](const Chunk& chunk) -> EncodedText {
      const Tokens tokens = tokens_of(chunk);
      const ClipOutput output = encoder_.forward(
          [&](const ClipEncoder& encoder) { return encoder.embed(tokens.ids, layer, tokens.vectors); },
          [&](const ClipEncoder& encoder, const ClipEncoder::State& state) { return encoder.finish(state, ops); }, ops);
      return {output.hidden, output.pooled};
    });
  }

 private:
  EncoderUse use_;
  ClipTokenizer tokenizer_;
  EncoderInPieces<ClipEncoder> encoder_;
  ChunkRule rule_;
  const TextualInversions& inversions_;
};

class T5PromptEncoder final : public PromptEncoder {
 public:
  T5PromptEncoder(const EncoderUse& use, const Weights& weights, const std::string& model,
                  const TextualInversions& inversions, std::vector<EncoderPiece> pieces)
      : tokenizer_(model),
        encoder_(std::move(pieces),
                 [&](const EncoderPiece& piece) {
                   return std::make_unique<T5Encoder>(weights.on(piece.device), piece.held);
                 }),
        rule_(tokenizer_.chunks(static_cast<std::size_t>(use.shortest))),
        inversions_(inversions) {}

  EncodedText encode(std::string_view prompt, std::int64_t /*clip_skip*/, const Ops& ops) const override {
    const std::vector<Chunk> chunks = tokenize(
        prompt, [&](std::string_view text) { return tokenizer_.encode(text); }, rule_,
        [&](std::string_view name) { return inversions_.vectors(name, TextEncoder::T5xxl, encoder_.width()); });
    return encode_chunks(chunks, rule_, [&](const Chunk& chunk) -> EncodedText {
      const Tokens tokens = tokens_of(chunk);
      const at::Tensor hidden = encoder_.forward(
          [&](const T5Encoder& encoder) { return encoder.embed(tokens.ids, tokens.vectors); },
          [&](const T5Encoder& encoder, const T5Encoder::State& state) { return encoder.finish(state); }, ops);
      return {hidden, {}};
    });
  }

 private:
  T5Tokenizer tokenizer_;
  EncoderInPieces<T5Encoder> encoder_;
  ChunkRule rule_;
  const TextualInversions& inversions_;
};

}  // namespace

std::unique_ptr<PromptEncoder> load_prompt_encoder(const TextRecipe& recipe, std::size_t index, const Weights& weights,
                                                   const std::string& tokenizer, const TextualInversions& inversions,
                                                   std::vector<EncoderPiece> pieces) {
  const EncoderUse& use = recipe.encoders[index];
  if (use.encoder == TextEncoder::T5xxl)
    return std::make_unique<T5PromptEncoder>(use, weights, tokenizer, inversions, std::move(pieces));
  return std::make_unique<ClipPromptEncoder>(use, recipe.breaks, weights, tokenizer, inversions, std::move(pieces));
}

}  // namespace mgpu
