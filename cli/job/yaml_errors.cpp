#include "cli/job/yaml_errors.h"

#include <fmt/format.h>

#include <algorithm>

namespace mgpu {
namespace {

constexpr std::size_t npos = std::string_view::npos;
constexpr std::size_t kShown = 80;  // bytes of a text that a hint shows in quotes

bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

bool is_space(char c) {
  return is_blank(c) || c == '\n' || c == '\r';
}

bool is_flow_mark(char c) {
  return c == ',' || c == '[' || c == ']' || c == '{' || c == '}';
}

std::size_t end_of_line(std::string_view text, std::size_t at) {
  return std::min(text.find('\n', at), text.size());
}

std::size_t begin_of_line(std::string_view text, std::size_t at) {
  const std::size_t before = at == 0 ? npos : text.rfind('\n', at - 1);
  return before == npos ? 0 : before + 1;
}

std::size_t skip_blanks(std::string_view text, std::size_t at) {
  while (at < text.size() && is_blank(text[at])) ++at;
  return at;
}

bool ends_line(std::string_view text, std::size_t at) {
  return at >= text.size() || text[at] == '\n' || text[at] == '\r';
}

/// Whether a `-`, `?` or `:` at `at` is a mark of its own.
bool stands_alone(std::string_view text, std::size_t at) {
  return at + 1 >= text.size() || is_space(text[at + 1]);
}

/// Where the key or value of a line begins: behind its blanks and the dashes of lists.
std::size_t begin_of_entry(std::string_view text, std::size_t line) {
  std::size_t at = skip_blanks(text, line);
  while (at < text.size() && text[at] == '-' && stands_alone(text, at) && !ends_line(text, skip_blanks(text, at + 1)))
    at = skip_blanks(text, at + 1);
  return at;
}

/// Behind the lines of the block scalar whose mark, | or >, stands at `at`.
std::size_t end_of_block(std::string_view text, std::size_t at) {
  const std::size_t line = begin_of_line(text, at), key = begin_of_entry(text, line);
  const std::size_t least = key < at ? key - line + 1 : skip_blanks(text, line) - line + 1;
  std::size_t next = std::min(end_of_line(text, at) + 1, text.size());
  while (next < text.size()) {
    const std::size_t first = skip_blanks(text, next);
    if (!ends_line(text, first) && first - next < least) break;
    next = std::min(end_of_line(text, next) + 1, text.size());
  }
  return next;
}

bool opens_block(std::string_view text, std::size_t at) {
  const std::size_t rest = text.find_first_not_of("+-0123456789", at + 1);
  const std::size_t behind = rest == npos ? text.size() : skip_blanks(text, rest);
  return ends_line(text, behind) || text[behind] == '#';
}

std::size_t end_of_plain(std::string_view text, std::size_t at, bool in_flow) {
  for (; at < text.size() && text[at] != '\n'; ++at) {
    const char c = text[at];
    if (c == ':' && (stands_alone(text, at) || (in_flow && is_flow_mark(text[at + 1])))) break;
    if (c == '#' && at > 0 && is_space(text[at - 1])) break;
    if (in_flow && is_flow_mark(c)) break;
  }
  return at;
}

/// Whether something stands behind a text in quotes that cannot.
bool is_followed_by_more(std::string_view text, const QuotedText& quoted) {
  const std::size_t at = skip_blanks(text, quoted.end);
  if (ends_line(text, at) || text[at] == ':') return false;
  if (text[at] == '#' && at > quoted.end) return false;
  return !quoted.in_flow || (text[at] != ',' && text[at] != ']' && text[at] != '}');
}

/// Whether the text holds what looks like keys or lies over several lines: more than its writer meant.
bool swallows_more(std::string_view inside) {
  return inside.find('\n') != npos || inside.find(": ") != npos || inside.find("\":") != npos;
}

/// The line that YAML could not read, from the value of its key on; npos where it has none.
std::size_t value_in_line(std::string_view text, std::size_t at) {
  const std::size_t entry = begin_of_entry(text, begin_of_line(text, at));
  const std::size_t end = end_of_plain(text, entry, false);
  if (end >= text.size() || text[end] != ':') return npos;
  const std::size_t value = skip_blanks(text, end + 1);
  return ends_line(text, value) ? npos : value;
}

/// Behind the bracket that closes the one at `at`, quotes left out; npos where none does.
std::size_t end_of_flow(std::string_view text, std::size_t at) {
  int depth = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && --depth == 0) return at + 1;
    if (c == '"' || c == '\'') {
      const std::size_t end = end_of_quoted(text, at);
      if (end == npos) return npos;
      at = end - 1;
    }
  }
  return npos;
}

/// Whether YAML takes the text whose first character is at `value` for something else, as what it says at `at` shows.
bool is_taken_otherwise(std::string_view text, std::size_t value, std::size_t at) {
  const char c = text[value];
  if (c == '[' || c == '{') return end_of_flow(text, value) <= at;
  if (c == '-' || c == '?' || c == ':') return stands_alone(text, value);
  return std::string_view("]}*&!%@`|>,").find(c) != npos;
}

/// The texts in quotes up to byte `until`, and where the brackets stand that are open there.
std::vector<QuotedText> walk(std::string_view text, std::size_t until, std::vector<std::size_t>& open) {
  std::vector<QuotedText> out;
  for (std::size_t i = 0; i < std::min(until, text.size());) {
    const char c = text[i];
    if (c == '"' || c == '\'') {
      out.push_back({i, end_of_quoted(text, i), !open.empty()});
      if (out.back().end == npos) return out;
      i = out.back().end;
    } else if (c == '#' && (i == 0 || is_space(text[i - 1]))) {
      i = end_of_line(text, i);
    } else if (is_space(c) || c == ',' ||
               ((c == '-' || c == '?' || c == ':') && (stands_alone(text, i) || !open.empty()))) {
      ++i;
    } else if (c == '[' || c == '{') {
      open.push_back(i++);
    } else if (c == ']' || c == '}') {
      if (!open.empty()) open.pop_back();
      ++i;
    } else if ((c == '|' || c == '>') && open.empty() && opens_block(text, i)) {
      i = end_of_block(text, i);
    } else if (c == '&' || c == '*' || c == '!') {
      while (i < text.size() && !is_space(text[i]) && !(!open.empty() && is_flow_mark(text[i]))) ++i;
    } else {
      i = std::max(end_of_plain(text, i, !open.empty()), i + 1);
    }
  }
  return out;
}

/// The innermost bracket that is open at `at`, or npos.
std::size_t open_bracket(std::string_view text, std::size_t at) {
  std::vector<std::size_t> open;
  walk(text, at, open);
  return open.empty() ? npos : open.back();
}

/// Behind a value inside brackets: before the comma or bracket that ends it, or the end of its line.
std::size_t end_of_flow_value(std::string_view text, std::size_t at) {
  while (!ends_line(text, at) && std::string_view(",]}").find(text[at]) == npos) {
    const char c = text[at];
    const bool quoted = c == '"' || c == '\'', nested = c == '[' || c == '{';
    const std::size_t end = quoted ? end_of_quoted(text, at) : nested ? end_of_flow(text, at) : at + 1;
    at = std::min(end, text.size());
  }
  return at;
}

/// Of a bracket that is still open where the text ends.
Error unclosed_bracket(const Source& source, std::size_t begin) {
  const std::string_view text(source.text());
  const Mark mark = source.mark_at(begin);
  const std::string_view line = text.substr(begin, end_of_line(text, begin) - begin);
  const bool comment = line.find(" #") != npos;
  return source.error(mark, fmt::format("nothing closes this \"{}\"", text[begin]),
                      comment ? "# begins a comment: put the text in quotes"
                              : fmt::format("put a {} at its end", text[begin] == '[' ? ']' : '}'));
}

std::string backslash_hint(std::string_view text, std::size_t at) {
  const std::string_view escape = text.substr(text.rfind('\\', at) == npos ? at : text.rfind('\\', at), 2);
  if (escape == "\\u" || escape == "\\U" || escape == "\\x")
    return "\\u and four digits are one character each: write a character beyond U+FFFF itself, or as \\U0001f98a";
  return fmt::format(
      "\\ in double quotes begins an escape, and \"{}\" is none: put the text in single quotes, or write \\\\", escape);
}

}  // namespace

std::size_t end_of_quoted(std::string_view text, std::size_t begin) {
  const char quote = text[begin];
  for (std::size_t i = begin + 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text[i] == quote) {
      if (quote == '"' || i + 1 >= text.size() || text[i + 1] != quote) return i + 1;
      ++i;
    }
  }
  return npos;
}

std::vector<QuotedText> quoted_texts(std::string_view text) {
  std::vector<std::size_t> open;
  return walk(text, text.size(), open);
}

Error unclosed_quote(const Source& source, std::size_t begin, std::string hint) {
  const Mark mark = source.mark_at(begin);
  if (hint.empty()) hint = fmt::format("put a {} at its end", source.text()[begin]);
  return source.error(mark, fmt::format("the text that begins at {} has no closing quote", mark.to_string()),
                      std::move(hint));
}

std::string quoting_hint(const Source& source, std::size_t begin) {
  const std::string_view all(source.text());
  const bool in_flow = open_bracket(all, begin) != npos;
  std::string_view text =
      all.substr(begin, (in_flow ? end_of_flow_value(all, begin) : end_of_line(all, begin)) - begin);
  if (const std::size_t comment = text.find(" #"); comment != npos) text = text.substr(0, comment);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  const bool plain = text.find_first_of("\"\\") == npos;
  if (text.empty() || text.size() > kShown || (!plain && text.find('\'') != npos)) return "put the text in quotes";
  const char quote = plain ? '"' : '\'';
  return fmt::format("put the text in quotes: {}{}{}", quote, text, quote);
}

Error syntax_error(const Source& source, std::size_t at, const std::string& said) {
  const std::string& text = source.text();
  const std::string message = fmt::format("not valid YAML: {}", said);
  if (at > text.size()) at = text.size();
  const Mark mark = source.mark_at(at);
  if (said == "bad file") return source.error(mark, "maps and lists nest deeper here than a job's");
  if (said.starts_with("unknown escape") || said.starts_with("invalid unicode") || said.starts_with("bad character"))
    return source.error(mark, message, backslash_hint(text, at));
  for (const QuotedText& quoted : quoted_texts(text)) {
    if (quoted.begin > at) break;
    if (quoted.end == npos) return unclosed_quote(source, quoted.begin);
    if (!is_followed_by_more(text, quoted)) continue;
    const std::string_view inside = std::string_view(text).substr(quoted.begin, quoted.end - quoted.begin);
    if (swallows_more(inside))
      return unclosed_quote(source, quoted.begin,
                            fmt::format("the next quote stands at {}, and what is behind it is no YAML",
                                        source.mark_at(quoted.end - 1).to_string()));
    const bool apostrophe = text[quoted.begin] == '\'' && quoted.end < text.size() && !is_space(text[quoted.end]);
    return source.error(source.mark_at(quoted.begin), message,
                        apostrophe ? "an apostrophe in single quotes is written twice: put the text in double quotes"
                                   : quoting_hint(source, quoted.begin));
  }
  std::vector<std::size_t> open;
  walk(text, text.size(), open);
  if (said.ends_with("flow not found") && !open.empty()) return unclosed_bracket(source, open.back());
  constexpr std::string_view kFlow = "inside [ ] and { }, put text that holds any of , : # ? [ ] { } in quotes";
  if (const std::size_t bracket = open_bracket(text, at); said == "illegal flow end" && bracket != npos)
    return source.error(
        mark, message,
        fmt::format("the \"{}\" at {} is open here; {}", text[bracket], source.mark_at(bracket).to_string(), kFlow));
  if (at < text.size() && std::string_view("*&!%@`|>").find(text[at]) != npos && open_bracket(text, at) != npos)
    return source.error(mark, message, quoting_hint(source, at));
  const std::size_t line = begin_of_line(text, at), first = begin_of_entry(text, line);
  if (text.find('\t', line) < first) return source.error(mark, message, "YAML indents with spaces, not tabs");
  const std::size_t value = value_in_line(text, at);
  if (value == npos) return source.error(mark, message);
  if (is_taken_otherwise(text, value, at))
    return source.error(source.mark_at(value), message, quoting_hint(source, value));
  if (text[value] == '[' || text[value] == '{') return source.error(mark, message, std::string(kFlow));
  const std::size_t colon = end_of_plain(text, value, false);
  if (colon < text.size() && text[colon] == ':')
    return source.error(
        mark, message,
        fmt::format("put text that holds a colon in quotes{}",
                    quoting_hint(source, value).substr(std::string_view("put the text in quotes").size())));
  return source.error(mark, message);
}

bool is_commented_out(const Source& source, const Mark& key) {
  const std::size_t at = source.offset_of(key);
  if (at == npos) return false;
  const std::string_view text(source.text());
  const std::string_view line = text.substr(at, end_of_line(text, at) - at);
  const std::size_t colon = line.find(':');
  if (colon == npos) return false;
  const std::size_t value = skip_blanks(line, colon + 1);
  return value > colon + 1 && value < line.size() && line[value] == '#';
}

bool is_without_colon(const Source& source, const Mark& key, std::string_view name) {
  const std::size_t at = source.offset_of(key);
  if (at == npos) return false;
  const std::string_view text(source.text());
  if (!text.substr(at).starts_with(name)) return false;
  std::size_t behind = at + name.size();
  while (behind < text.size() && is_space(text[behind])) ++behind;
  return behind < text.size() && (text[behind] == ',' || text[behind] == '}');
}

}  // namespace mgpu
