#include "core/text/prompt_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr int kDeepest = 500;

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

bool ends_word(std::string_view text, std::size_t at) {
  return at == text.size() || text[at] == ',' || is_blank(text[at]);
}

/// The mark that stands at `at`, if any, and where it ends.
std::optional<std::pair<PromptPart, std::size_t>> mark_at(std::string_view text, std::size_t at) {
  constexpr std::string_view kBreak = "BREAK", kInversion = "embedding:";
  const bool after_blank = at == 0 || is_blank(text[at - 1]);
  if (!after_blank && text[at - 1] != ',') return std::nullopt;
  const std::string_view rest = text.substr(at);
  if (rest.starts_with(kBreak) && ends_word(text, at + kBreak.size()))
    return {{{PromptPart::Kind::Break, rest.substr(0, kBreak.size())}, at + kBreak.size()}};
  if (!rest.starts_with(kInversion) || !after_blank) return std::nullopt;  // as ComfyUI
  std::size_t begin = at + kInversion.size();
  while (begin < text.size() && is_blank(text[begin])) ++begin;  // ComfyUI takes "embedding: name" too
  std::size_t end = begin;
  while (!ends_word(text, end)) ++end;
  if (begin == end) return std::nullopt;
  return {{{PromptPart::Kind::Inversion, text.substr(begin, end - begin)}, end}};
}

}  // namespace

std::vector<PromptPart> split_marks(std::string_view text, bool breaks, bool inversions) {
  std::vector<PromptPart> parts;
  std::size_t begin = 0;
  const auto add_text = [&](std::size_t end) {
    if (end > begin) parts.push_back({PromptPart::Kind::Text, text.substr(begin, end - begin)});
  };
  for (std::size_t i = 0; i < text.size();) {
    const auto mark = mark_at(text, i);
    if (!mark || !(mark->first.kind == PromptPart::Kind::Break ? breaks : inversions)) {
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

std::vector<Segment> parse_weights(std::string_view prompt) {
  std::vector<Segment> segments;
  weigh(hide_escapes(prompt), 1.0, 0, segments);
  return segments;
}

std::vector<std::string> embedding_names(std::string_view prompt) {
  std::vector<std::string> names;
  for (const Segment& segment : parse_weights(prompt)) {
    for (const PromptPart& part : split_marks(segment.text, /*breaks=*/false, /*inversions=*/true)) {
      if (part.kind == PromptPart::Kind::Inversion) names.emplace_back(part.text);
    }
  }
  return names;
}

std::vector<std::string> texts_without_marks(std::string_view prompt) {
  std::vector<std::string> texts;
  for (const Segment& segment : parse_weights(prompt)) {
    for (const PromptPart& part : split_marks(segment.text, /*breaks=*/false, /*inversions=*/true)) {
      if (part.kind == PromptPart::Kind::Text) texts.emplace_back(part.text);
    }
  }
  return texts;
}

}  // namespace mgpu
