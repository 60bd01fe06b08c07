#include "core/text/prompt.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr int kDeepest = 500;
constexpr std::size_t kMovesWhole = 8;  // segments of fewer tokens are never cut

// Escaped parentheses travel through the parser as bytes that are no parentheses and that UTF-8 never uses.
constexpr char kEscapedOpen = '\xFE';
constexpr char kEscapedClose = '\xFF';

bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

std::string hide_escapes(std::string_view text) {
  std::string hidden;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    if (next == '(' || next == ')') {
      hidden += next == '(' ? kEscapedOpen : kEscapedClose;
      ++i;
    } else {
      hidden += text[i];
    }
  }
  return hidden;
}

std::string show_escapes(std::string_view text) {
  std::string shown(text);
  std::ranges::replace(shown, kEscapedOpen, '(');
  std::ranges::replace(shown, kEscapedClose, ')');
  return shown;
}

/// Cuts before each outermost "(" and after the ")" that closes it. The level goes below zero at a stray ")" and stays
/// there until an "(" makes up for it.
std::vector<std::string_view> split_outermost(std::string_view text) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  int level = 0;
  const auto cut = [&](std::size_t end) {
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '(' && level++ == 0) cut(i);
    if (text[i] == ')' && --level == 0) cut(i + 1);
  }
  cut(text.size());
  return parts;
}

/// A number as Python's float() reads it, as far as people write weights: blanks around it, a sign, an exponent.
std::optional<double> number(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

void weigh(std::string_view text, double weight, int depth, std::vector<Segment>& segments) {
  if (depth > kDeepest) {
    throw Error(Exit::Usage, {}, fmt::format("the prompt's parentheses nest deeper than {}", kDeepest),
                "write \\( and \\) for parentheses that are no weights");
  }
  for (std::string_view part : split_outermost(text)) {
    if (part.size() < 2 || part.front() != '(' || part.back() != ')') {
      segments.push_back({show_escapes(part), weight});
      continue;
    }
    part = part.substr(1, part.size() - 2);
    double inner = weight * 1.1;
    const std::size_t colon = part.rfind(':');
    if (colon != std::string_view::npos && colon > 0) {
      if (const std::optional<double> given = number(part.substr(colon + 1))) {
        inner = *given;
        part = part.substr(0, colon);
      }
    }
    weigh(part, inner, depth + 1, segments);
  }
}

/// A part of a segment: text, a textual inversion's name, or BREAK.
struct Part {
  enum class Kind : std::uint8_t { Text, Inversion, Break };
  Kind kind = Kind::Text;
  std::string_view text;
};

bool ends_word(std::string_view text, std::size_t at) {
  return at == text.size() || text[at] == ',' || is_blank(text[at]);
}

/// The mark that stands at `at`, if any, and where it ends.
std::optional<std::pair<Part, std::size_t>> mark_at(std::string_view text, std::size_t at) {
  constexpr std::string_view kBreak = "BREAK", kInversion = "embedding:";
  const bool after_blank = at == 0 || is_blank(text[at - 1]);
  const std::string_view rest = text.substr(at);
  if (rest.starts_with(kBreak) && (after_blank || text[at - 1] == ',') && ends_word(text, at + kBreak.size()))
    return {{{Part::Kind::Break, rest.substr(0, kBreak.size())}, at + kBreak.size()}};
  if (!rest.starts_with(kInversion) || !after_blank) return std::nullopt;
  std::size_t begin = at + kInversion.size();
  while (begin < text.size() && is_blank(text[begin])) ++begin;  // ComfyUI takes "embedding: name" too
  std::size_t end = begin;
  while (!ends_word(text, end)) ++end;
  if (begin == end) return std::nullopt;
  return {{{Part::Kind::Inversion, text.substr(begin, end - begin)}, end}};
}

/// Cuts a segment at the marks that are asked for.
std::vector<Part> split_marks(std::string_view text, bool breaks, bool inversions) {
  std::vector<Part> parts;
  std::size_t begin = 0;
  const auto add_text = [&](std::size_t end) {
    if (end > begin) parts.push_back({Part::Kind::Text, text.substr(begin, end - begin)});
  };
  for (std::size_t i = 0; i < text.size();) {
    const auto mark = mark_at(text, i);
    if (!mark || !(mark->first.kind == Part::Kind::Break ? breaks : inversions)) {
      ++i;
      continue;
    }
    add_text(i);
    parts.push_back(mark->first);
    begin = i = mark->second;
  }
  add_text(text.size());
  return parts;
}

/// Fills chunks from the front.
class Chunker {
 public:
  explicit Chunker(const ChunkRule& rule) : rule_(rule) { open(); }

  void add(const std::vector<Token>& tokens) {
    const bool whole = tokens.size() < kMovesWhole;
    std::size_t next = 0;
    while (next < tokens.size()) {
      const std::size_t left = tokens.size() - next;
      const std::size_t take = left <= room() ? left : whole ? 0 : room();
      const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(next);
      chunks_.back().insert(chunks_.back().end(), first, first + static_cast<std::ptrdiff_t>(take));
      next += take;
      if (next < tokens.size()) begin_next();
    }
  }

  void begin_next() {
    close();
    open();
  }

  std::vector<Chunk> finish() {
    if (chunks_.size() > 1 && chunks_.back().size() == (rule_.start ? 1 : 0)) {
      chunks_.pop_back();  // nothing follows the last BREAK
    } else {
      close();
    }
    return std::move(chunks_);
  }

 private:
  std::size_t room() const { return rule_.longest - 1 - chunks_.back().size(); }  // the end token takes one

  void open() {
    chunks_.emplace_back();
    if (rule_.start) chunks_.back().push_back({*rule_.start});
  }

  void close() {
    Chunk& chunk = chunks_.back();
    chunk.push_back({rule_.end});
    if (chunk.size() < rule_.shortest) chunk.resize(rule_.shortest, {rule_.pad});
  }

  const ChunkRule& rule_;
  std::vector<Chunk> chunks_;
};

std::vector<Token> text_tokens(const std::vector<std::int64_t>& ids, double weight) {
  std::vector<Token> tokens;
  for (const std::int64_t id : ids) tokens.push_back({id, weight});
  return tokens;
}

std::vector<Token> vector_tokens(const at::Tensor& vectors, double weight) {
  std::vector<Token> tokens;
  for (const at::Tensor& vector : vectors.unbind(0)) tokens.push_back({.id = 0, .weight = weight, .vector = vector});
  return tokens;
}

}  // namespace

std::vector<Segment> parse_weights(std::string_view prompt) {
  std::vector<Segment> segments;
  weigh(hide_escapes(prompt), 1.0, 0, segments);
  return segments;
}

std::vector<Chunk> tokenize(std::string_view prompt, const EncodeText& encode, const ChunkRule& rule,
                            const FindVectors& find) {
  MGPU_CHECK(rule.longest > kMovesWhole + 2, "a chunk of {} tokens", rule.longest);
  Chunker chunker(rule);
  for (const Segment& segment : parse_weights(prompt)) {
    for (const Part& part : split_marks(segment.text, rule.breaks, find != nullptr)) {
      if (part.kind == Part::Kind::Break) {
        chunker.begin_next();
      } else if (part.kind == Part::Kind::Inversion) {
        chunker.add(vector_tokens(find(part.text), segment.weight));
      } else {
        chunker.add(text_tokens(encode(part.text), segment.weight));
      }
    }
  }
  return chunker.finish();
}

std::vector<std::string> embedding_names(std::string_view prompt) {
  std::vector<std::string> names;
  for (const Segment& segment : parse_weights(prompt)) {
    for (const Part& part : split_marks(segment.text, /*breaks=*/false, /*inversions=*/true)) {
      if (part.kind == Part::Kind::Inversion) names.emplace_back(part.text);
    }
  }
  return names;
}

Chunk empty_chunk(const ChunkRule& rule, std::size_t length) {
  Chunk chunk;
  if (rule.start) chunk.push_back({*rule.start});
  chunk.push_back({rule.end});
  chunk.resize(length, {rule.pad});
  return chunk;
}

}  // namespace mgpu
