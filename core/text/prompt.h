#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "core/text/chunk_rule.h"
#include "core/text/prompt_text.h"

namespace mgpu {

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

/// Ids of a text without start and end.
using EncodeText = std::function<std::vector<std::int64_t>(std::string_view text)>;

/// Vectors [n, C] of a textual inversion by its name. Throws Error (exit 2) where there is none.
using FindVectors = std::function<at::Tensor(std::string_view name)>;

/// Tokens of a prompt in at least one chunk. Every segment is encoded by itself. One of fewer than 8 tokens that no
/// longer fits moves whole to the next chunk, a longer one is cut. `embedding:name`, at a segment's beginning or after
/// a blank or comma and up to a blank or comma, is a segment of as many tokens as the textual inversion has vectors;
/// without `find` it is text. (After a comma alone ComfyUI reads words, or drops both names.) BREAK stands between
/// blanks, commas or a segment's ends; nothing follows a last one. Reference:
/// comfy/sd1_clip.py (SDTokenizer.tokenize_with_weights); A1111 (modules/sd_hijack_clip.py) for BREAK.
std::vector<Chunk> tokenize(std::string_view prompt, const EncodeText& encode, const ChunkRule& rule,
                            const FindVectors& find = {});

/// The chunk of `length` tokens that weights are measured from: start, end, then padding alone.
Chunk empty_chunk(const ChunkRule& rule, std::size_t length);

}  // namespace mgpu
