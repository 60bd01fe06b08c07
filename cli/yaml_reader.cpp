#include "cli/yaml_reader.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <sstream>

namespace mgpu {
namespace {

constexpr std::size_t most_nodes = 1'000'000;  // far above any job, far below what an alias bomb expands to

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// yaml-cpp counts bytes; editors count characters.
int character_column(std::string_view line, int byte_column) {
  int column = 1;
  for (int i = 0; i < byte_column && i < static_cast<int>(line.size()); ++i) column += is_continuation(line[i]) ? 0 : 1;
  return column;
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

/// Offset of the first byte that is not UTF-8 text, or npos.
std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const std::size_t length = c < 0x80                ? 1
                               : c >= 0xC2 && c < 0xE0 ? 2
                               : c >= 0xE0 && c < 0xF0 ? 3
                               : c >= 0xF0 && c < 0xF5 ? 4
                                                       : 0;
    if (length == 0 || i + length > text.size() || c == 0) return i;
    for (std::size_t k = 1; k < length; ++k)
      if (!is_continuation(text[i + k])) return i;
    const unsigned char second = length > 1 ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool overlong = (c == 0xE0 && second < 0xA0) || (c == 0xF0 && second < 0x90);
    const bool outside = (c == 0xED && second > 0x9F) || (c == 0xF4 && second > 0x8F);
    if (overlong || outside) return i;
    i += length;
  }
  return std::string_view::npos;
}

/// A UTF-16 surrogate that text begins with as an escape ("\ud83e"), or 0.
unsigned surrogate(std::string_view text) {
  unsigned unit = 0;
  if (!text.starts_with("\\u") || text.size() < 6) return 0;
  const auto [end, fault] = std::from_chars(text.data() + 2, text.data() + 6, unit, 16);
  return fault == std::errc{} && end == text.data() + 6 && unit >= 0xD800 && unit < 0xE000 ? unit : 0;
}

/// JSON escapes a character beyond U+FFFF as two halves, "\ud83e\udd8a", and YAML as "\U0001f98a".
constexpr int kPairBytes = 12, kYamlEscapeBytes = 10;

/// Text for yaml-cpp, which refuses halves: what was JSON's is YAML's.
struct YamlText {
  std::string text;
  std::vector<std::size_t> pairs = {};  ///< offsets in the original, of escapes that were kPairBytes long
};

YamlText without_pairs(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || (text[first] != '{' && text[first] != '[')) return {text};
  YamlText out;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view rest = std::string_view(text).substr(i);
    const bool escape = in_string && rest.front() == '\\' && rest.size() > 1;
    const unsigned high = escape ? surrogate(rest) : 0, low = high != 0 ? surrogate(rest.substr(6)) : 0;
    if (high != 0 && high < 0xDC00 && low >= 0xDC00) {
      out.pairs.push_back(i);
      out.text += fmt::format("\\U{:08x}", 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
      i += kPairBytes;
      continue;
    }
    if (rest.front() == '"') in_string = !in_string;
    out.text += rest.substr(0, escape ? 2 : 1);
    i += escape ? 2 : 1;
  }
  return out;
}

class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(const Source& source, const std::vector<std::size_t>& pairs)
      : source_(source), pairs_(pairs), lines_(split_lines(source.text())) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(make(YamlNode::Kind::Null, mark), anchor); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw source_.error(place(mark), "an alias inside the value that it names");
    count_ += found->second.second;
    check_count(place(mark));
    attach(found->second.first);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    YamlNode node = make(YamlNode::Kind::Scalar, mark);
    node.text = value;
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    add(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back({make(YamlNode::Kind::List, mark), anchor, count_, {}, {}, false});
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back({make(YamlNode::Kind::Map, mark), anchor, count_, {}, {}, false});
  }
  void OnMapEnd() override { close(); }

  Mark place(const YAML::Mark& mark) const {
    if (mark.is_null() || mark.line >= static_cast<int>(lines_.size())) return Mark{source_.name()};
    const std::string_view line = lines_[static_cast<std::size_t>(mark.line)];
    return Mark{source_.name(), mark.line + 1, character_column(line, original_column(line, mark.column))};
  }

  YamlNode root;

 private:
  struct Open {
    YamlNode node;
    YAML::anchor_t anchor;
    std::size_t count_before;
    std::string key;  ///< of the entry whose value comes next
    Mark key_mark;
    bool has_key;
  };

  /// The byte of a line of the source that yaml-cpp saw at `column`.
  int original_column(std::string_view line, int column) const {
    const auto start = static_cast<std::size_t>(line.data() - source_.text().data());
    for (auto pair = std::ranges::lower_bound(pairs_, start); pair != pairs_.end(); ++pair) {
      if (*pair >= start + static_cast<std::size_t>(column)) break;
      column += kPairBytes - kYamlEscapeBytes;
    }
    return column;
  }

  YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark) {
    ++count_;
    YamlNode node;
    node.kind = kind;
    node.mark = place(mark);
    check_count(node.mark);
    return node;
  }

  void check_count(const Mark& mark) const {
    if (count_ > most_nodes) throw source_.error(mark, fmt::format("more than {} values", most_nodes));
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag.empty() || tag == "?" || tag == "!" || tag.starts_with("tag:yaml.org,2002:")) return;
    throw source_.error(place(mark), fmt::format("unknown tag \"{}\"", tag));
  }

  void add(YamlNode node, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = {node, 1};
    attach(std::move(node));
  }

  void close() {
    Open open = std::move(open_.back());
    open_.pop_back();
    const std::size_t count = count_ - open.count_before + 1;
    if (open.anchor != 0) anchors_[open.anchor] = {open.node, count};
    attach(std::move(open.node));
  }

  void attach(YamlNode node) {
    if (open_.empty()) {
      root = std::move(node);
    } else if (open_.back().node.kind == YamlNode::Kind::List) {
      open_.back().node.items.push_back(std::move(node));
    } else if (!open_.back().has_key) {
      take_key(node);
    } else {
      Open& map = open_.back();
      map.node.entries.push_back({std::move(map.key), map.key_mark, std::move(node)});
      map.has_key = false;
    }
  }

  void take_key(const YamlNode& key) {
    Open& map = open_.back();
    if (key.kind != YamlNode::Kind::Scalar) throw source_.error(key.mark, "a key must be plain text");
    if (const YamlNode::Entry* first = map.node.find(key.text))
      throw source_.error(key.mark, fmt::format("key \"{}\" is given twice", key.text),
                          fmt::format("the first is at {}", first->mark.to_string()));
    map.key = key.text;
    map.key_mark = key.mark;
    map.has_key = true;
  }

  const Source& source_;
  const std::vector<std::size_t>& pairs_;
  std::vector<std::string_view> lines_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, std::pair<YamlNode, std::size_t>> anchors_;
  std::size_t count_ = 0;
};

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
    throw Error(Exit::Usage, mark, fmt::format("\"{}\" is one value in the job, \"{}\"", walked, node.text),
                fmt::format("set it as a whole: --set {}=...", walked));
  node.kind = YamlNode::Kind::Map;
  for (YamlNode::Entry& entry : node.entries)
    if (entry.key == part) return entry.value;
  node.entries.push_back({std::string(part), mark, YamlNode{}});
  mark_as_option(node.entries.back().value, mark);
  return node.entries.back().value;
}

}  // namespace

Source::Source(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {
  if (text_.starts_with("\xEF\xBB\xBF")) text_.erase(0, 3);
  lines_ = split_lines(text_);
}

std::string_view Source::line(int number) const {
  if (number < 1 || number > static_cast<int>(lines_.size())) return {};
  return lines_[static_cast<std::size_t>(number) - 1];
}

std::string Source::excerpt(const Mark& mark) const {
  if (mark.line < 1 || mark.line > static_cast<int>(lines_.size()) || mark.file != name_) return {};
  const std::string_view line = this->line(mark.line);
  std::string below;
  int column = 1;
  for (std::size_t i = 0; i < line.size() && column < mark.column; ++i) {
    if (is_continuation(line[i])) continue;
    below += line[i] == '\t' ? '\t' : ' ';
    ++column;
  }
  return fmt::format("{:4} | {}\n     | {}^", mark.line, line, below);
}

Mark Source::inside(const Mark& mark, std::string_view text, std::size_t offset) const {
  if (mark.file != name_) return mark;
  std::string_view rest = line(mark.line);
  for (int column = 1; column < mark.column && !rest.empty(); ++column) {
    rest.remove_prefix(1);
    while (!rest.empty() && is_continuation(rest.front())) rest.remove_prefix(1);
  }
  const bool quoted = rest.starts_with('"') || rest.starts_with('\'');
  if (quoted) rest.remove_prefix(1);
  if (!rest.starts_with(text)) return mark;
  Mark out = mark;
  out.column += (quoted ? 1 : 0) + character_column(text, static_cast<int>(offset)) - 1;
  return out;
}

Error Source::error(const Mark& mark, std::string message, std::string hint) const {
  return Error(Exit::Usage, mark, std::move(message), std::move(hint), excerpt(mark));
}

const YamlNode::Entry* YamlNode::find(std::string_view key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

namespace {

/// What most often is wrong with a line that YAML cannot read.
std::string syntax_hint(std::string_view line) {
  if (line.substr(0, line.find_first_not_of(" \t")).find('\t') != std::string_view::npos)
    return "YAML indents with spaces, not tabs";
  const std::size_t first = line.find(": ");
  const bool second = first != std::string_view::npos && line.find(": ", first + 2) != std::string_view::npos;
  if (second && line.find('"') == std::string_view::npos) return "put text that holds a colon in quotes";
  return {};
}

}  // namespace

YamlNode parse_yaml(const Source& source) {
  const std::size_t invalid = find_invalid_utf8(source.text());
  if (invalid != std::string_view::npos)
    throw Error(Exit::Usage, Mark{source.name()}, fmt::format("byte {} is not UTF-8 text", invalid),
                "a job file is YAML");
  const YamlText yaml = without_pairs(source.text());
  TreeBuilder builder(source, yaml.pairs);
  try {
    std::istringstream stream(yaml.text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    YamlNode root = std::move(builder.root);
    TreeBuilder rest(source, yaml.pairs);
    if (parser.HandleNextDocument(rest) && rest.root.kind != YamlNode::Kind::Null)
      throw source.error(rest.root.mark, "a second document", "a job file holds one");
    return root;
  } catch (const YAML::Exception& e) {
    const Mark mark = builder.place(e.mark);
    throw source.error(mark, fmt::format("not valid YAML: {}", e.msg), syntax_hint(source.line(mark.line)));
  }
}

void set_value(YamlNode& root, const std::string& path, const std::string& value) {
  const Mark mark{fmt::format("--set {}={}", path, value)};
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
    *node = parse_yaml(Source("value", value));
  } catch (const Error& e) {
    throw Error(Exit::Usage, mark, e.message(), e.hint());
  }
  mark_as_option(*node, mark);
}

}  // namespace mgpu
