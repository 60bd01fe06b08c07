#include "cli/job/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cli/job/yaml_errors.h"

namespace mgpu {
namespace {

constexpr std::size_t kShown = 200;  // bytes of a setting in messages

void mark_as_option(YamlNode& node, const Mark& mark) {
  node.mark = mark;
  node.from_option = true;
  for (YamlNode& item : node.items) mark_as_option(item, mark);
  for (YamlNode::Entry& entry : node.entries) {
    entry.mark = mark;
    mark_as_option(entry.value, mark);
  }
}

/// The child of `node` that one part of a --set path names; `walked` is the path so far.
YamlNode& child(YamlNode& node, std::string_view part, const std::string& walked, const Mark& mark) {
  if (node.kind == YamlNode::Kind::List) {
    std::size_t index = 0;
    const auto [end, fault] = std::from_chars(part.data(), part.data() + part.size(), index);
    if (fault != std::errc{} || end != part.data() + part.size() || index >= node.items.size())
      throw Error(Exit::Usage, mark, fmt::format("\"{}\" has no entry \"{}\"", walked, part),
                  fmt::format("it has {}, counted from 0", node.items.size()));
    return node.items[index];
  }
  if (node.kind == YamlNode::Kind::Scalar)
    throw Error(Exit::Usage, mark,
                fmt::format("\"{}\" is one value in the job, \"{}\"", walked, without_middle(node.text, kShown)),
                fmt::format("set it as a whole: --set {}=...", walked));
  node.kind = YamlNode::Kind::Map;
  for (YamlNode::Entry& entry : node.entries)
    if (entry.key == part) return entry.value;
  node.entries.push_back({std::string(part), mark, YamlNode{}});
  mark_as_option(node.entries.back().value, mark);
  return node.entries.back().value;
}

/// Whether quotes enclose all of it.
bool is_in_quotes(std::string_view value) {
  return (value.starts_with('"') || value.starts_with('\'')) && end_of_quoted(value, 0) == value.size();
}

/// With blanks for control characters, line ends among them.
std::string on_one_line(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; }, ' ');
  return text;
}

YamlNode text_node(const std::string& value) {
  YamlNode node;
  node.kind = YamlNode::Kind::Scalar;
  node.text = value;
  node.quoted = true;
  return node;
}

}  // namespace

Setting parse_setting(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string_view::npos)
    throw Error(Exit::Usage, Mark{fmt::format("--set {}", text)}, "a setting is path=value",
                "as in --set sampler.steps=20");
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

void set_value(YamlNode& root, const std::string& path, const std::string& value, SettingKind kind) {
  const Mark mark{on_one_line(without_middle(fmt::format("--set {}={}", path, value), kShown))};
  YamlNode* node = &root;
  std::string walked;
  for (std::string_view rest = path;;) {
    const std::size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    if (part.empty()) throw Error(Exit::Usage, mark, fmt::format("\"{}\" is no path", path), "as in sampler.steps=20");
    node = &child(*node, part, walked, mark);
    if (!walked.empty()) walked += '.';
    walked += part;
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  try {
    const Source source("value", value);
    check_characters(source);
    *node = kind == SettingKind::Text && !is_in_quotes(value) ? text_node(value) : parse_yaml(source);
  } catch (const Error& e) {
    throw Error(Exit::Usage, mark, e.message(), e.hint());
  }
  mark_as_option(*node, mark);
}

}  // namespace mgpu
