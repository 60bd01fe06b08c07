#include "core/text/t5_model.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/error.h"
#include "core/text/t5_encoder.h"
#include "core/text/t5_sizes.h"
#include "core/text/t5_tokenizer.h"

namespace mgpu {
namespace {

constexpr TokenizerData kPieces{"t5xxl", "t5xxl_spiece.model", "T5's spiece.model"};

class T5Chunk final : public PromptTokenizer {
 public:
  T5Chunk(const std::string& model, std::int64_t shortest)
      : tokenizer_(model), rule_(tokenizer_.chunks(static_cast<std::size_t>(shortest))) {}
  std::vector<Chunk> chunks(std::string_view prompt, const FindVectors& find) const override {
    return tokenize(
        prompt, [&](std::string_view text) { return tokenizer_.encode(text); }, rule_, find);
  }
  const ChunkRule& rule() const { return rule_; }

 private:
  T5Tokenizer tokenizer_;
  ChunkRule rule_;
};

class T5PromptEncoder final : public PromptEncoder {
 public:
  T5PromptEncoder(const EncoderUse& use, const Weights& weights, const std::string& model,
                  const TextualInversions& inversions, std::vector<EncoderPiece> pieces)
      : tokenizer_(model, use.shortest),
        encoder_(std::move(pieces),
                 [&](const EncoderPiece& piece) {
                   return std::make_unique<T5Encoder>(weights.on(piece.device), piece.held);
                 }),
        inversions_(inversions) {}

  EncodedText encode(std::string_view prompt, std::int64_t /*clip_skip*/, const Ops& ops) const override {
    const std::vector<Chunk> chunks = tokenizer_.chunks(prompt, [&](std::string_view name) {
      return inversions_.vectors(name, kT5xxl.names().embedding, encoder_.width());
    });
    return encode_chunks(chunks, tokenizer_.rule(), [&](const Chunk& chunk) -> EncodedText {
      const ChunkTokens tokens = chunk_tokens(chunk);
      const at::Tensor hidden = encoder_.forward(
          [&](const T5Encoder& encoder) { return encoder.embed(tokens.ids, tokens.vectors); },
          [&](const T5Encoder& encoder, const T5Encoder::State& state) { return encoder.finish(state); }, ops);
      return {hidden, {}};
    });
  }

 private:
  T5Chunk tokenizer_;
  EncoderInPieces<T5Encoder> encoder_;
  const TextualInversions& inversions_;
};

}  // namespace

const T5Model kT5xxl({{"a T5 text encoder", "encoders.t5xxl",
                       encoder_prefixes({"", "text_encoders.t5xxl.", "t5xxl.", "cond_stage_model.t5xxl.",
                                         "text_encoder_2.", "text_encoder_3.", "text_encoders.t5.", "t5."})},
                      "t5xxl",
                      "T5",
                      "t5xxl",
                      &kPieces});

Sizes T5Model::read(PartShapes& shapes) const {
  return read_t5_sizes(shapes);
}

BlockCounts T5Model::blocks(const Sizes& sizes) const {
  return {{"layer", std::any_cast<const T5Sizes&>(sizes).layers}};
}

int T5Model::width(const Part& part) const {
  return part.as<T5Sizes>().hidden;
}

// T5's table may have rows that no token stands for, and must have one for each piece.
void T5Model::check_tokenizer(const Part& part, const std::string& data) const {
  const std::int64_t pieces = T5Tokenizer(data).pieces(), known = part.as<T5Sizes>().vocabulary;
  if (known >= pieces) return;
  fail_file(part.file->path(),
            fmt::format("does not belong to {}: it knows {} tokens, and that model makes {}", data, known, pieces),
            "name the sentencepiece model that the encoder was trained with under \"tokenizers.t5xxl\"");
}

std::unique_ptr<PromptTokenizer> T5Model::tokenizer(const std::string& data, const EncoderUse& use, bool) const {
  return std::make_unique<T5Chunk>(data, use.shortest);
}

std::unique_ptr<PromptEncoder> T5Model::load(const EncoderUse& use, bool, const Weights& weights,
                                             const std::string& data, const TextualInversions& inversions,
                                             std::vector<EncoderPiece> pieces) const {
  return std::make_unique<T5PromptEncoder>(use, weights, data, inversions, std::move(pieces));
}

}  // namespace mgpu
