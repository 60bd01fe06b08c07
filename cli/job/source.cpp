#include "cli/job/source.h"

#include <fmt/format.h>

#include <algorithm>

namespace mgpu {
namespace {

constexpr std::size_t kBlock = 256;        // bytes between two counts of characters
constexpr std::size_t kWholeLine = 160;    // characters of a line that is shown as it is
constexpr std::size_t kShownBefore = 60;   // characters of a longer line before the caret ...
constexpr std::size_t kShownBehind = 60;   // ... and behind it
constexpr std::size_t kLongestText = 600;  // bytes of a message or hint
constexpr std::string_view kCut = "...";

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return !is_continuation(c); }));
}

/// The bytes that the first `characters` of a text take.
std::size_t bytes_of(std::string_view text, std::size_t characters) {
  std::size_t at = 0;
  for (; characters > 0 && at < text.size(); --characters) {
    ++at;
    while (at < text.size() && is_continuation(text[at])) ++at;
  }
  return at;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (true) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    if (end == std::string_view::npos) return lines;
    text.remove_prefix(end + 1);
  }
}

}  // namespace

Source::Source(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {
  if (text_.starts_with("\xEF\xBB\xBF")) text_.erase(0, 3);
  lines_ = split_lines(text_);
  std::size_t characters = 0;
  for (std::size_t i = 0; i <= text_.size(); i += kBlock) {
    characters_.push_back(characters);
    characters += count_characters(std::string_view(text_).substr(i, kBlock));
  }
}

std::string_view Source::line(int number) const {
  if (number < 1 || number > static_cast<int>(lines_.size())) return {};
  return lines_[static_cast<std::size_t>(number) - 1];
}

std::size_t Source::begin_of(std::string_view line) const {
  return static_cast<std::size_t>(line.data() - text_.data());
}

std::size_t Source::characters_before(std::size_t offset) const {
  const std::size_t block = offset / kBlock;
  return characters_[block] + count_characters(std::string_view(text_).substr(block * kBlock, offset % kBlock));
}

Mark Source::mark_at(std::size_t offset) const {
  offset = std::min(offset, text_.size());
  const auto next = std::ranges::upper_bound(lines_, text_.data() + offset, {}, [](auto line) { return line.data(); });
  const std::size_t begin = begin_of(*std::prev(next));
  return {name_, static_cast<int>(next - lines_.begin()),
          static_cast<int>(characters_before(offset) - characters_before(begin)) + 1};
}

std::size_t Source::offset_of(const Mark& mark) const {
  if (mark.line < 1 || mark.line > static_cast<int>(lines_.size()) || mark.file != name_) return std::string::npos;
  const std::string_view line = this->line(mark.line);
  const std::size_t begin = begin_of(line), end = begin + line.size();
  // The character of that number in the text lies in the last block before which there are no more.
  const std::size_t number = characters_before(begin) + static_cast<std::size_t>(std::max(mark.column, 1)) - 1;
  const auto block = std::prev(std::ranges::upper_bound(characters_, number));
  std::size_t at = std::max(begin, static_cast<std::size_t>(block - characters_.begin()) * kBlock);
  while (at < end && is_continuation(text_[at])) ++at;  // of a character that begins in the block before
  at += bytes_of(std::string_view(text_).substr(at), number - characters_before(at));
  return std::min(at, end);
}

std::string Source::excerpt(const Mark& mark) const {
  const std::size_t caret = offset_of(mark);
  if (caret == std::string::npos) return {};
  const std::string_view line = this->line(mark.line);
  std::string_view before = line.substr(0, caret - begin_of(line)), behind = line.substr(before.size());
  std::string shown(line);
  std::string below;
  if (const std::size_t characters = count_characters(before); characters + count_characters(behind) > kWholeLine) {
    const bool cut_before = characters > kShownBefore;
    if (cut_before) before.remove_prefix(bytes_of(before, characters - kShownBefore));
    const std::string_view end = behind.substr(0, bytes_of(behind, kShownBehind));
    shown = fmt::format("{}{}{}{}", cut_before ? kCut : "", before, end, end.size() < behind.size() ? kCut : "");
    if (cut_before) below.assign(kCut.size(), ' ');
  }
  for (const char c : before)
    if (!is_continuation(c)) below += c == '\t' ? '\t' : ' ';
  return fmt::format("{:4} | {}\n     | {}^", mark.line, shown, below);
}

Mark Source::inside(const Mark& mark, std::string_view text, std::size_t offset) const {
  const std::size_t begin = offset_of(mark);
  if (begin == std::string::npos) return mark;
  std::string_view rest = line(mark.line);
  rest.remove_prefix(begin - begin_of(rest));
  const bool quoted = rest.starts_with('"') || rest.starts_with('\'');
  if (quoted) rest.remove_prefix(1);
  if (!rest.starts_with(text)) return mark;
  Mark out = mark;
  out.column += (quoted ? 1 : 0) + static_cast<int>(count_characters(text.substr(0, offset)));
  return out;
}

Error Source::error(const Mark& mark, std::string message, std::string hint) const {
  return Error(Exit::Usage, mark, without_middle(std::move(message), kLongestText),
               without_middle(std::move(hint), kLongestText), excerpt(mark));
}

std::string without_middle(std::string text, std::size_t most) {
  constexpr std::string_view kMiddle = " ... ";
  if (text.size() <= most || most <= kMiddle.size()) return text;
  std::size_t end = (most - kMiddle.size()) * 2 / 3, begin = text.size() - (most - kMiddle.size() - end);
  while (end > 0 && is_continuation(text[end])) --end;
  while (begin < text.size() && is_continuation(text[begin])) ++begin;
  return text.substr(0, end) + std::string(kMiddle) + text.substr(begin);
}

}  // namespace mgpu
