#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

// How a prompt is taken apart before anything is encoded.

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

/// A part of a segment: text, a textual inversion's name, or BREAK.
struct PromptPart {
  enum class Kind : std::uint8_t { Text, Inversion, Break };
  Kind kind = Kind::Text;
  std::string_view text;
};

/// Cuts a segment at the marks that are asked for. The parts are of its text.
std::vector<PromptPart> split_marks(std::string_view text, bool breaks, bool inversions);

/// Names of the textual inversions in a prompt, in order.
std::vector<std::string> embedding_names(std::string_view prompt);

/// What of a prompt is encoded as text, without the marks of textual inversions, in order.
std::vector<std::string> texts_without_marks(std::string_view prompt);

}  // namespace mgpu
