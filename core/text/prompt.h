#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// A stretch of a prompt under one weight.
struct Segment {
  std::string text;
  double weight = 1.0;

  bool operator==(const Segment&) const = default;
};

/// ComfyUI's weights: `(x)` multiplies the surrounding weight by 1.1, `(x:1.3)` replaces it by 1.3, `\(` and `\)` are
/// plain parentheses. What is no finite number after the last colon is text; an unclosed parenthesis is text, and a
/// stray closing one makes the next opening one text too. Throws Error (exit 2) where parentheses nest deeper than 500.
/// Reference: comfy/sd1_clip.py (token_weights).
std::vector<Segment> parse_weights(std::string_view prompt);

/// A token of a prompt and the weight of its segment; start, end and padding weigh 1.
struct Token {
  std::int64_t id = 0;
  double weight = 1.0;
  at::Tensor vector = {};  ///< [C]: a textual inversion's, in the place of the row `id` of the encoder's table

  bool operator==(const Token& other) const {
    return id == other.id && weight == other.weight && vector.is_same(other.vector);
  }
};

/// What an encoder reads in one call.
using Chunk = std::vector<Token>;

/// How an encoder wants its tokens.
struct ChunkRule {
  std::optional<std::int64_t> start;  ///< leads every chunk
  std::int64_t end = 0;               ///< follows the last token of every chunk
  std::int64_t pad = 0;               ///< fills a chunk up to `shortest`
  std::size_t shortest = 0;           ///< tokens, with start and end
  std::size_t longest = std::numeric_limits<std::size_t>::max();
  bool breaks = false;  ///< the word BREAK ends a chunk, which is padded; else it is a word like others
};

/// Ids of a text without start and end.
using EncodeText = std::function<std::vector<std::int64_t>(std::string_view text)>;

/// Vectors [n, C] of a textual inversion by its name. Throws Error (exit 2) where there is none.
using FindVectors = std::function<at::Tensor(std::string_view name)>;

/// Tokens of a prompt in at least one chunk. Every segment is encoded by itself. One of fewer than 8 tokens that no
/// longer fits moves whole to the next chunk, a longer one is cut. `embedding:name`, at a segment's beginning or after
/// a blank and up to a blank or comma, is a segment of as many tokens as the textual inversion has vectors; without
/// `find` it is text. BREAK stands between blanks, commas or a segment's ends; nothing follows a last one. Reference:
/// comfy/sd1_clip.py (SDTokenizer.tokenize_with_weights); A1111 (modules/sd_hijack_clip.py) for BREAK.
std::vector<Chunk> tokenize(std::string_view prompt, const EncodeText& encode, const ChunkRule& rule,
                            const FindVectors& find = {});

/// Names of the textual inversions in a prompt, in order.
std::vector<std::string> embedding_names(std::string_view prompt);

/// The chunk of `length` tokens that weights are measured from: start, end, then padding alone.
Chunk empty_chunk(const ChunkRule& rule, std::size_t length);

}  // namespace mgpu
