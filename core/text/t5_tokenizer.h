#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/chunk_rule.h"
#include "core/text/sentencepiece_model.h"

namespace mgpu {

/// T5's unigram tokenizer over a sentencepiece model. Ids are those of transformers' T5TokenizerFast with ComfyUI's
/// tokenizer.json, which differs from sentencepiece itself: the added tokens (<pad>, </s>, <unk>, <extra_id_0> to
/// <extra_id_99>) are split off first, the text between them is normalised grapheme by grapheme, and the best pieces
/// are sought word by word in fp64, so that ties fall otherwise. Reference: https://github.com/huggingface/tokenizers
/// (normalizers/precompiled.rs, pre_tokenizers/metaspace.rs, models/unigram/model.rs).
class T5Tokenizer {
 public:
  /// Throws Error (exit 2) where `model_path` is no sentencepiece model that begins with <pad>, </s> and <unk>.
  explicit T5Tokenizer(const std::string& model_path);

  /// Ids of a text, without the end. Bytes that are no UTF-8 count as U+FFFD.
  std::vector<std::int64_t> encode(std::string_view text) const;

  /// Pieces of the model: ids of a text are below this, but those of a literal <extra_id_N>.
  std::int64_t pieces() const { return model_pieces_; }

  /// One chunk, however long, padded with 0 to at least `shortest` tokens: 256 for Flux.
  ChunkRule chunks(std::size_t shortest) const { return {.start = {}, .end = 1, .pad = 0, .shortest = shortest}; }

 private:
  struct Piece {
    std::int64_t id = 0;
    double score = 0.0;
  };
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  void encode_word(std::string_view word, std::vector<std::int64_t>& ids) const;

  CharacterMap map_;
  std::unordered_map<std::string, Piece, Hash, std::equal_to<>> pieces_;
  std::int64_t model_pieces_ = 0;
  std::size_t longest_ = 0;  ///< piece, in bytes
  double unknown_score_ = 0.0;
};

}  // namespace mgpu
