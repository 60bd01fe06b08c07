#include "core/text/clip_model.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/model_set.h"
#include "core/part_shapes.h"
#include "core/text/clip_encoder.h"
#include "core/text/clip_sizes.h"
#include "core/text/clip_tokenizer.h"

namespace mgpu {
namespace {

constexpr std::size_t kChunkTokens = 77, kMovesWhole = 8;

constexpr TokenizerData kMerges{"clip", "clip_merges.txt", "CLIP's merges.txt"};

class ClipChunks final : public PromptTokenizer {
 public:
  ClipChunks(const std::string& merges, bool is_openai, bool breaks)
      : tokenizer_(merges), rule_(tokenizer_.chunks(is_openai ? tokenizer_.end() : 0)) {
    rule_.breaks = breaks;
  }
  std::vector<Chunk> chunks(std::string_view prompt, const FindVectors& find) const override {
    return tokenize(
        prompt, [&](std::string_view text) { return tokenizer_.encode(text); }, rule_, find);
  }
  const ChunkRule& rule() const { return rule_; }
  std::int64_t end() const { return tokenizer_.end(); }

 private:
  ClipTokenizer tokenizer_;
  ChunkRule rule_;
};

class ClipPromptEncoder final : public PromptEncoder {
 public:
  ClipPromptEncoder(const ClipModel& model, bool is_openai, const EncoderUse& use, bool breaks, const Weights& weights,
                    const std::string& merges, const TextualInversions& inversions, std::vector<EncoderPiece> pieces)
      : model_(model),
        use_(use),
        tokenizer_(merges, is_openai, breaks),
        encoder_(std::move(pieces),
                 [&](const EncoderPiece& piece) {
                   const ClipOptions options{.end = tokenizer_.end(),
                                             .quick_gelu = is_openai,
                                             .project_pooled = use.pooled == EncoderUse::Pooled::Projected};
                   return std::make_unique<ClipEncoder>(weights.on(piece.device), options, piece.held);
                 }),
        inversions_(inversions) {}

  EncodedText encode(std::string_view prompt, std::int64_t clip_skip, const Ops& ops) const override {
    const ClipLayer layer{.layer = layer_under(use_, clip_skip), .norm = use_.norm_layer};
    const std::vector<Chunk> chunks = tokenizer_.chunks(prompt, [&](std::string_view name) {
      return inversions_.vectors(name, model_.names().embedding, encoder_.width());
    });
    return encode_chunks(chunks, tokenizer_.rule(), [&](const Chunk& chunk) -> EncodedText {
      const ChunkTokens tokens = chunk_tokens(chunk);
      const ClipOutput output = encoder_.forward(
          [&](const ClipEncoder& encoder) { return encoder.embed(tokens.ids, layer, tokens.vectors); },
          [&](const ClipEncoder& encoder, const ClipEncoder::State& state) { return encoder.finish(state, ops); }, ops);
      return {output.hidden, output.pooled};
    });
  }

 private:
  const ClipModel& model_;
  EncoderUse use_;
  ClipChunks tokenizer_;
  EncoderInPieces<ClipEncoder> encoder_;
  const TextualInversions& inversions_;
};

[[noreturn]] void fail_left_out(const Part& part, const std::string& name, const ModelSet& set) {
  fail_missing_tensor(*part.file, part.prefix + name,
                      fmt::format("{} reads it: name the whole encoder's file under \"{}\"", set.diffusion.row->name,
                                  part.row->role->key));
}

[[noreturn]] void fail_layer_left_out(const Part& part, int layer, const ModelSet& set) {
  const auto& clip = part.as<ClipSizes>();
  fail_left_out(part, fmt::format("{}{}.{}.weight", clip.layers_prefix, layer, clip.layer_norm), set);
}

}  // namespace

const ClipModel kClipL({{"a CLIP-L text encoder", "encoders.clip_l",
                         encoder_prefixes({"", "text_encoders.clip_l.", "clip_l.", "cond_stage_model.",
                                           "conditioner.embedders.0.", "cond_stage_model.clip_l.", "text_encoder."})},
                        "clip_l",
                        "CLIP-L",
                        "clip_l",
                        &kMerges},
                       /*is_openai=*/true);
const ClipModel kClipG({{"a CLIP-G text encoder", "encoders.clip_g",
                         encoder_prefixes({"", "text_encoders.clip_g.", "clip_g.", "conditioner.embedders.1.",
                                           "conditioner.embedders.0.", "cond_stage_model.clip_g.", "text_encoder_2.",
                                           "text_encoder."})},
                        "clip_g",
                        "CLIP-G",
                        "clip_g",
                        &kMerges},
                       /*is_openai=*/false);
const ClipModel kClipH({{"a CLIP-H text encoder", "encoders.clip_l",
                         encoder_prefixes({"", "text_encoders.clip_h.", "clip_h.", "cond_stage_model.",
                                           "conditioner.embedders.0.", "cond_stage_model.clip_h.", "text_encoder."})},
                        "clip_l",
                        "CLIP-H",
                        "clip_h",
                        &kMerges},
                       /*is_openai=*/false);

Sizes ClipModel::read(PartShapes& shapes) const {
  return read_clip_sizes(shapes);
}

BlockCounts ClipModel::blocks(const Sizes& sizes) const {
  return {{"layer", std::any_cast<const ClipSizes&>(sizes).layers}};
}

int ClipModel::width(const Part& part) const {
  return part.as<ClipSizes>().hidden;
}

int ClipModel::pooled_width(const Part& part, const EncoderUse& use, const ModelSet& set) const {
  const auto& clip = part.as<ClipSizes>();
  if (use.pooled != EncoderUse::Pooled::Projected) return clip.hidden;
  if (!clip.projection) fail_left_out(part, clip.projection_name, set);
  PartShapes shapes(*part.file, part.prefix);
  const bool is_linear = clip.projection_name.ends_with(".weight");
  const int out = shapes.take(clip.projection_name, 2, is_linear ? 0 : 1);
  shapes.expect(clip.projection_name,
                is_linear ? PartShapes::Shape{out, clip.hidden} : PartShapes::Shape{clip.hidden, out});
  return out;
}

void ClipModel::check(const Part& part, const EncoderUse& use, const ModelSet& set) const {
  const auto& clip = part.as<ClipSizes>();
  if (clip.positions < static_cast<int>(kChunkTokens))
    fail_file(part.file->path(),
              fmt::format("has {} positions for tokens, and prompts take {}", clip.positions, kChunkTokens));
  const bool pools = use.pooled != EncoderUse::Pooled::None;
  if (pools && clip.layers < clip.depth) fail_layer_left_out(part, clip.layers, set);
  if ((pools || (use.context && use.norm_layer)) && !clip.final_norm)
    fail_left_out(part, clip.norm_name + ".weight", set);
}

void ClipModel::check_layer(const Part& part, const EncoderUse& use, std::int64_t clip_skip,
                            const ModelSet& set) const {
  const auto& clip = part.as<ClipSizes>();
  const std::int64_t layer = layer_under(use, clip_skip), from_first = layer < 0 ? clip.depth + layer : layer;
  if (from_first < 0 || from_first >= clip.depth)
    fail_file(part.file->path(),
              fmt::format("the CLIP encoder has {} layers, and layer {} was asked for", clip.depth, layer),
              "a clip_skip that passes the first layer cannot be rendered");
  if (from_first >= clip.layers) fail_layer_left_out(part, clip.layers, set);
}

// Another model's merges would make tokens that the encoder lacks, or lead it astray with those that it has.
void ClipModel::check_tokenizer(const Part& part, const std::string& data) const {
  const std::int64_t tokens = ClipTokenizer(data).vocabulary(), known = part.as<ClipSizes>().vocabulary;
  if (known == tokens) return;
  fail_file(part.file->path(),
            fmt::format("does not belong to {}: it knows {} tokens, and those merges make {}", data, known, tokens),
            "name the merges that the encoder was trained with under \"tokenizers.clip\"");
}

std::size_t ClipModel::most_tokens(std::size_t bytes) const {
  const std::size_t filled = kChunkTokens - 2 - (kMovesWhole - 1);  // a short segment moves whole to the next chunk
  return kChunkTokens * std::max<std::size_t>(1, (bytes + filled - 1) / filled);
}

std::unique_ptr<PromptTokenizer> ClipModel::tokenizer(const std::string& data, const EncoderUse&, bool breaks) const {
  return std::make_unique<ClipChunks>(data, is_openai_, breaks);
}

std::unique_ptr<PromptEncoder> ClipModel::load(const EncoderUse& use, bool breaks, const Weights& weights,
                                               const std::string& data, const TextualInversions& inversions,
                                               std::vector<EncoderPiece> pieces) const {
  return std::make_unique<ClipPromptEncoder>(*this, is_openai_, use, breaks, weights, data, inversions,
                                             std::move(pieces));
}

}  // namespace mgpu
