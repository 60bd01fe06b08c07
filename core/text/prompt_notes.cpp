#include "core/text/prompt_notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <utility>

#include "core/strings.h"
#include "core/text/prompt_text.h"

namespace mgpu {
namespace {

constexpr std::size_t npos = std::string_view::npos;
constexpr std::size_t kShown = 60;      // bytes of what is quoted
constexpr std::size_t kFarthest = 500;  // bytes between a bracket and the one that closes it

bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || (static_cast<unsigned char>(c) & 0x80) != 0;
}

std::string shown(std::string_view text) {
  std::size_t end = std::min(text.size(), kShown);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  std::string out = in_quotes(text.substr(0, end));
  return end < text.size() ? out.insert(out.size() - 1, "...") : out;
}

/// A word by itself.
std::optional<std::string_view> find_word(std::string_view text, std::string_view word) {
  for (std::size_t at = text.find(word); at != npos; at = text.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end])))
      return text.substr(at, end - at);
  }
  return std::nullopt;
}

/// The first stretch between an opening and a closing bracket, without either inside, of which `holds` is true.
template <class Holds>
std::optional<std::string_view> find_bracketed(std::string_view text, char open, char close, Holds holds) {
  std::size_t begin = npos;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == open) begin = i;
    if (text[i] != close || begin == npos) continue;
    const std::string_view whole = text.substr(begin, i + 1 - begin);
    if (whole.size() <= kFarthest && holds(whole.substr(1, whole.size() - 2))) return whole;
    begin = npos;
  }
  return std::nullopt;
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789. ") == npos && text.find_first_of("0123456789") != npos;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_network(std::string_view written) {
  const std::string inside = lower(written.substr(0, 9));
  return inside.starts_with("lora:") || inside.starts_with("lyco:") || inside.starts_with("hypernet:");
}

bool is_scheduled(std::string_view inside) {
  const std::size_t last = inside.rfind(':');
  return inside.find('|') != npos || (last != npos && is_number(inside.substr(last + 1)));
}

/// "red:1,2"
bool has_comma_weight(std::string_view inside) {
  const std::size_t colon = inside.rfind(':'), comma = inside.rfind(',');
  return colon != npos && comma != npos && comma > colon && is_number(inside.substr(colon + 1, comma - colon - 1)) &&
         is_number(inside.substr(comma + 1));
}

bool is_choice(std::string_view inside) {
  return inside.find('|') != npos;
}

/// "__animal__"
std::optional<std::string_view> find_wildcard(std::string_view text) {
  for (std::size_t at = text.find("__"); at != npos; at = text.find("__", at + 1)) {
    std::size_t end = at + 2;
    while (end < text.size() && (is_word(text[end]) || text[end] == '/' || text[end] == '-') &&
           !text.substr(end).starts_with("__"))
      ++end;
    if (end > at + 2 && text.substr(end).starts_with("__")) return text.substr(at, end + 2 - at);
  }
  return std::nullopt;
}

/// A stretch whose parentheses weigh nothing, since one of them has no other: from a ")" without its "(" on, where more
/// follow, or from a "(" that is not closed.
std::optional<std::string_view> find_unpaired(std::string_view text) {
  std::size_t outermost = 0;
  int level = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '(' || text[i + 1] == ')')) {
      ++i;
    } else if (text[i] == '(') {
      if (level++ == 0) outermost = i;
    } else if (text[i] == ')' && --level < 0) {
      const std::size_t next = text.find('(', i);
      if (next != npos) return text.substr(i);
      return std::nullopt;
    }
  }
  const bool weighs = level > 0 && outermost + 1 < text.size() && !is_blank(text[outermost + 1]);
  return weighs ? std::optional(text.substr(outermost)) : std::nullopt;
}

/// The first segment that weighs far more than anybody means: "(at 10:30)" weighs 30.
std::optional<Segment> find_heavy(std::string_view prompt) {
  constexpr double kHeavy = 5.0;
  for (Segment& segment : parse_weights(prompt))
    if (std::abs(segment.weight) >= kHeavy) return std::move(segment);
  return std::nullopt;
}

/// The word that begins at `at`, up to a blank or comma.
std::string_view word_at(std::string_view text, std::size_t at) {
  std::size_t end = at;
  while (end < text.size() && !is_blank(text[end]) && text[end] != ',') ++end;
  return text.substr(at, end - at);
}

void add_inversions(std::string_view prompt, std::vector<PromptNote>& out) {
  constexpr std::string_view kMark = "embedding:";
  for (const std::string& text : texts_without_marks(prompt)) {
    const std::size_t at = lower(text).find(kMark);
    if (at == std::string::npos) continue;
    const bool small = std::string_view(text).substr(at).starts_with(kMark);
    const std::string_view word = word_at(text, at);
    const char* why = !small ? "the mark is written in small letters, embedding:NAME"
                      : word.size() == kMark.size()
                          ? "a name has to follow"
                          : "only a blank, a parenthesis or the beginning of the prompt may stand before it";
    out.push_back({"embedding", fmt::format("{} is read as words: {}", shown(word), why)});
    return;
  }
}

}  // namespace

std::vector<PromptNote> prompt_notes(std::string_view prompt, bool breaks) {
  std::vector<PromptNote> out;
  const auto add = [&](std::string_view kind, std::optional<std::string_view> found, std::string_view why) {
    if (found) out.push_back({kind, fmt::format("{} is read as words: {}", shown(*found), why)});
  };
  add("lora", find_bracketed(prompt, '<', '>', is_network), "LoRAs are not supported yet");
  add("and", find_word(prompt, "AND"), "further prompts are listed under \"conditions\"");
  add("scheduled", find_bracketed(prompt, '[', ']', is_scheduled),
      "a prompt is the same at every step; those under \"conditions\" have a start and an end");
  add("choice", find_bracketed(prompt, '{', '}', is_choice),
      "nothing is drawn from it; list the prompts under \"images\"");
  add("wildcard", find_wildcard(prompt), "there are no wildcards; list the prompts under \"images\"");
  add("comma", find_bracketed(prompt, '(', ')', has_comma_weight), "a weight is written with a point, as 1.2");
  if (const auto unpaired = find_unpaired(prompt)) {
    const bool is_open = unpaired->front() == '(';
    add(is_open ? "unclosed" : "unopened", unpaired,
        is_open ? "its \"(\" is not closed; \\( is a parenthesis by itself"
                : "its \")\" closes nothing, and parentheses behind it are no weights; \\) is a parenthesis by itself");
  }
  if (const auto heavy = find_heavy(prompt))
    out.push_back({"heavy", fmt::format("{} has the weight {}: where none is meant, write \\( and \\)",
                                        shown(heavy->text), heavy->weight)});
  if (!breaks) add("break", find_word(prompt, "BREAK"), "this model reads its prompt in one piece");
  add_inversions(prompt, out);
  return out;
}

}  // namespace mgpu
