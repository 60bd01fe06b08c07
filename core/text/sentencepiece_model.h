#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// sentencepiece's table of replacements: a double-array trie (https://github.com/s-yata/darts-clone) over UTF-8, whose
/// values are offsets into zero-terminated strings.
class CharacterMap {
 public:
  /// `blob`: four bytes of the trie's size, the trie, the strings; empty for the identity.
  explicit CharacterMap(std::string_view blob = {});

  /// What the shortest prefix of `text` that the table knows becomes, or nothing.
  std::optional<std::string_view> replacement(std::string_view text) const;

 private:
  std::uint32_t at(std::uint32_t node) const { return node < trie_.size() ? trie_[node] : 0; }

  std::vector<std::uint32_t> trie_;
  std::string strings_;
};

/// What a sentencepiece model file holds, as far as a unigram tokenizer reads it.
/// Format: https://github.com/google/sentencepiece (src/sentencepiece_model.proto)
struct SentencePieceModel {
  struct Piece {
    std::string text;
    float score = 0.0F;
  };
  std::vector<Piece> pieces;  ///< by id
  CharacterMap map;
};

/// Throws Error (exit 2) naming a file that cannot be read. A file of another format gives a model without sensible
/// pieces.
SentencePieceModel read_sentencepiece_model(const std::string& path);

}  // namespace mgpu
