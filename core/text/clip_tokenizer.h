#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/chunk_rule.h"

namespace mgpu {

/// CLIP's byte-level BPE. The vocabulary follows from the merges alone: 256 bytes, 256 bytes that end a word, one token
/// a merge in order, start, end; the published merges give 49408. Ids are those of transformers' CLIPTokenizer without
/// ftfy, which is what ComfyUI calls: control characters dropped, CJK ideographs set apart, NFC, lower case, then
/// CLIP's pattern of contractions, letters, single digits and everything else. Reference:
/// https://github.com/openai/CLIP (simple_tokenizer.py) and transformers (models/clip/tokenization_clip.py).
class ClipTokenizer {
 public:
  /// Reads a merges file: an optional "#version" line, then two symbols a line. Throws Error (exit 2) naming file and
  /// line.
  explicit ClipTokenizer(const std::string& merges_path);

  /// Ids of a text, without start and end. A literal <|startoftext|> or <|endoftext|> is that token. Bytes that are no
  /// UTF-8 are dropped.
  std::vector<std::int64_t> encode(std::string_view text) const;

  std::int64_t start() const { return end() - 1; }
  std::int64_t end() const { return vocabulary() - 1; }
  /// Tokens in all: 512 symbols, one a merge, start and end.
  std::int64_t vocabulary() const { return static_cast<std::int64_t>(512 + merges_.size() + 2); }

  /// Chunks of 77 tokens, padded with `pad`: the end token for CLIP-L, 0 for CLIP-G.
  ChunkRule chunks(std::int64_t pad) const {
    return {.start = start(), .end = end(), .pad = pad, .shortest = 77, .longest = 77};
  }

 private:
  void encode_text(std::string_view text, std::vector<std::int64_t>& ids) const;
  void encode_word(std::string_view word, std::vector<std::int64_t>& ids) const;

  std::unordered_map<std::uint64_t, std::int64_t> merges_;  ///< left id << 32 | right id -> id of both together
};

}  // namespace mgpu
