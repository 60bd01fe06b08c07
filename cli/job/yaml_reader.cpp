#include "cli/job/yaml_reader.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <map>
#include <sstream>
#include <unordered_map>

#include "cli/job/yaml_errors.h"

namespace mgpu {
namespace {

// Far above any job, far below what an alias bomb expands to.
constexpr std::size_t kMostExpanded = 1'000'000;  // values that aliases stand for
constexpr std::size_t kMostWritten = 4'000'000;   // values that the text holds: 100,000 images of 40

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// Offset of the first control character that YAML does not allow, or npos. yaml-cpp takes U+0004 for the text's end.
std::size_t find_control(std::string_view text) {
  const auto is_control = [](char c) {
    return (c >= 0 && c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == '\x7f';
  };
  const auto found = std::ranges::find_if(text, is_control);
  return found == text.end() ? std::string_view::npos : static_cast<std::size_t>(found - text.begin());
}

/// A UTF-16 surrogate that text begins with as an escape ("\ud83e"), or 0.
unsigned surrogate(std::string_view text) {
  unsigned unit = 0;
  if (!text.starts_with("\\u") || text.size() < 6) return 0;
  const auto [end, fault] = std::from_chars(text.data() + 2, text.data() + 6, unit, 16);
  return fault == std::errc{} && end == text.data() + 6 && unit >= 0xD800 && unit < 0xE000 ? unit : 0;
}

/// JSON escapes a character beyond U+FFFF as two halves, "\ud83e\udd8a", and YAML as "\U0001f98a".
constexpr std::size_t kPairBytes = 12, kYamlEscapeBytes = 10;

/// Text for yaml-cpp, which refuses halves: what was JSON's is YAML's.
struct YamlText {
  std::string text;
  std::vector<std::size_t> pairs = {};  ///< offsets in `text` of escapes that were kPairBytes long

  /// The byte of the original that stands at `offset`.
  std::size_t original(std::size_t offset) const {
    const auto before = std::ranges::lower_bound(pairs, offset) - pairs.begin();
    return offset + static_cast<std::size_t>(before) * (kPairBytes - kYamlEscapeBytes);
  }
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
      out.pairs.push_back(out.text.size());
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
  TreeBuilder(const Source& source, const YamlText& yaml) : source_(source), yaml_(yaml) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(make(YamlNode::Kind::Null, mark), anchor); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw source_.error(place(mark), "an alias inside the value that it names");
    expanded_ += found->second.second;
    if (expanded_ > kMostExpanded)
      throw source_.error(place(mark), fmt::format("aliases stand for more than {} values", kMostExpanded));
    attach(found->second.first);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    YamlNode node = make(YamlNode::Kind::Scalar, mark);
    node.text = value;
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (tag == "!") node.last_line = last_line_of(mark);
    add(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back({make(YamlNode::Kind::List, mark), anchor, total(), {}, {}, false});
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back({make(YamlNode::Kind::Map, mark), anchor, total(), {}, {}, false});
  }
  void OnMapEnd() override { close(); }

  /// The byte of the source that yaml-cpp means.
  std::size_t offset(const YAML::Mark& mark) const {
    return mark.is_null() ? std::string::npos : yaml_.original(static_cast<std::size_t>(mark.pos));
  }

  Mark place(const YAML::Mark& mark) const {
    return mark.is_null() ? Mark{source_.name()} : source_.mark_at(offset(mark));
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
    std::unordered_map<std::string, Mark> keys = {};
  };

  /// The line in which a text in quotes ends; 0 of a block. yaml-cpp takes the end of the file for a closing quote.
  int last_line_of(const YAML::Mark& mark) const {
    const std::string& text = source_.text();
    std::size_t at = offset(mark);
    while (at < text.size() && (text[at] == '&' || text[at] == '!')) {  // an anchor or a tag stands before it
      at = text.find_first_of(" \t\r\n", at);
      at = at == std::string::npos ? text.size() : std::min(text.find_first_not_of(" \t\r\n", at), text.size());
    }
    if (at >= text.size() || (text[at] != '"' && text[at] != '\'')) return 0;
    const std::size_t end = end_of_quoted(text, at);
    if (end == std::string::npos) throw unclosed_quote(source_, at);
    return source_.mark_at(end - 1).line;
  }

  std::size_t total() const { return count_ + expanded_; }

  YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark) {
    ++count_;
    YamlNode node;
    node.kind = kind;
    node.mark = place(mark);
    if (count_ > kMostWritten) throw source_.error(node.mark, fmt::format("more than {} values", kMostWritten));
    return node;
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    constexpr std::string_view kCore = "tag:yaml.org,2002:";
    constexpr std::string_view kKnown[] = {"str", "int", "float", "bool", "null", "seq", "map"};
    if (tag.empty() || tag == "?" || tag == "!") return;
    if (tag.starts_with(kCore) && std::ranges::find(kKnown, tag.substr(kCore.size())) != std::end(kKnown)) return;
    throw source_.error(place(mark), fmt::format("unknown tag \"{}\"", tag), quoting_hint(source_, offset(mark)));
  }

  void add(YamlNode node, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = {node, 1};
    attach(std::move(node));
  }

  void close() {
    Open open = std::move(open_.back());
    open_.pop_back();
    const std::size_t count = total() - open.count_before + 1;
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
      if (node.kind == YamlNode::Kind::Null) node.mark = map.key_mark;  // yaml-cpp gives that of what comes next
      map.node.entries.push_back({std::move(map.key), map.key_mark, std::move(node)});
      map.has_key = false;
    }
  }

  void take_key(const YamlNode& key) {
    Open& map = open_.back();
    if (key.kind != YamlNode::Kind::Scalar) throw source_.error(key.mark, "a key must be plain text");
    const auto [first, is_new] = map.keys.emplace(key.text, key.mark);
    if (!is_new)
      throw source_.error(key.mark, fmt::format("key \"{}\" is given twice", key.text),
                          fmt::format("the first is at {}", first->second.to_string()));
    map.key = key.text;
    map.key_mark = key.mark;
    map.has_key = true;
  }

  const Source& source_;
  const YamlText& yaml_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, std::pair<YamlNode, std::size_t>> anchors_;
  std::size_t count_ = 0;     // of values that the text holds
  std::size_t expanded_ = 0;  // of those that aliases stand for
};

}  // namespace

const YamlNode::Entry* YamlNode::find(std::string_view key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

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

void check_characters(const Source& source) {
  const std::size_t invalid = find_invalid_utf8(source.text());
  if (invalid != std::string_view::npos)
    throw Error(Exit::Usage, source.mark_at(invalid), fmt::format("byte {} is not UTF-8 text", invalid),
                "write it in UTF-8");
  for (std::size_t at = source.text().find('\r'); at != std::string::npos; at = source.text().find('\r', at + 1))
    if (at + 1 < source.text().size() && source.text()[at + 1] != '\n')
      throw Error(Exit::Usage, source.mark_at(at), "a carriage return (CR) that no line feed (LF) follows",
                  "lines end in LF, or in CR LF");
  if (const std::size_t control = find_control(source.text()); control != std::string_view::npos)
    throw source.error(source.mark_at(control),
                       fmt::format("the control character U+{:04X}", static_cast<int>(source.text()[control])),
                       "text has none but tabs and line ends: take it out");
}

YamlNode parse_yaml(const Source& source) {
  check_characters(source);
  const YamlText yaml = without_pairs(source.text());
  TreeBuilder builder(source, yaml);
  try {
    std::istringstream stream(yaml.text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    YamlNode root = std::move(builder.root);
    TreeBuilder rest(source, yaml);
    if (parser.HandleNextDocument(rest) && rest.root.kind != YamlNode::Kind::Null)
      throw source.error(rest.root.mark, "a second document", "a job file holds one");
    return root;
  } catch (const YAML::Exception& e) {
    throw syntax_error(source, builder.offset(e.mark), e.msg);
  }
}

}  // namespace mgpu
