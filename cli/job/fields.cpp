#include "cli/job/fields.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "cli/job/key_hints.h"
#include "cli/job/suggest.h"
#include "cli/job/yaml_errors.h"

namespace mgpu {
namespace {

/// A value as an error quotes it.
std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::List:
      return "a list";
    case YamlNode::Kind::Map:
      return "a map";
    case YamlNode::Kind::Null:
      return "nothing";
    case YamlNode::Kind::Scalar:
      break;
  }
  constexpr std::size_t longest = 60;
  if (node.text.size() <= longest) return fmt::format("{}\"{}\"", node.quoted ? "the text " : "", node.text);
  std::size_t end = longest;
  while (end > 0 && (static_cast<unsigned char>(node.text[end]) & 0xC0) == 0x80) --end;
  return fmt::format("\"{}...\"", node.text.substr(0, end));
}

bool is_plain(const YamlNode& node) {
  return node.kind == YamlNode::Kind::Scalar && !node.quoted;
}

/// Decimal digits with an optional sign: 012 is twelve, not octal ten.
bool looks_like_integer(const YamlNode& node) {
  if (!is_plain(node)) return false;
  std::string_view digits = node.text;
  if (digits.starts_with('-')) digits.remove_prefix(1);
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::optional<double> to_number(std::string_view text) {
  double value = 0.0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<double> to_number(const YamlNode& node) {
  return is_plain(node) ? to_number(std::string_view(node.text)) : std::nullopt;
}

/// A number and a unit that is a power of 1024, in bytes. A number alone is none: 8 would be 8 bytes to one, 8 GB to
/// another.
std::optional<std::uint64_t> to_bytes(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::Scalar) return std::nullopt;
  const std::size_t end = std::min(node.text.find_first_not_of("0123456789."), node.text.size());
  const auto amount = to_number(std::string_view(node.text).substr(0, end));
  std::string unit = node.text.substr(end);
  unit.erase(0, unit.find_first_not_of(' ') == std::string::npos ? unit.size() : unit.find_first_not_of(' '));
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (!amount || *amount < 0.0) return std::nullopt;
  double factor = 0.0;
  if (unit == "b") factor = 1.0;
  if (unit == "kb" || unit == "kib") factor = 0x1p10;
  if (unit == "mb" || unit == "mib") factor = 0x1p20;
  if (unit == "gb" || unit == "gib") factor = 0x1p30;
  const double bytes = *amount * factor;
  if (factor == 0.0 || bytes < 1.0 || bytes > 0x1p60) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

/// What to write instead of a text that is no size.
std::string size_hint(const std::string& text) {
  const auto bare = to_number(std::string_view(text));
  if (!bare || !(*bare > 0.0)) return "units are B, KB, MB and GB, powers of 1024";
  const char* unit = *bare < 0x1p10 ? "GB" : *bare < 0x1p20 ? "MB" : "B";
  return fmt::format("did you mean {}{}?", text, unit);
}

/// A control character of a text, or NUL where it has none. Tabs and line ends are none, unless `name` asks for a
/// file's name.
std::optional<unsigned> control_character(std::string_view text, bool name) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool blank = c == '\t' || c == '\n' || c == '\r';
    if ((c < 0x20 && (name || !blank)) || c == 0x7f) return c;
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
    if (c == 0xC2 && next >= 0x80 && next < 0xA0 && next != 0x85) return next;  // U+0080 to U+009F but NEL
  }
  return std::nullopt;
}

/// Throws where a value is no text: a list or map may be text that was not put in quotes.
void check_is_text(const Value& value, const std::string& words) {
  if (value.node.kind == YamlNode::Kind::Scalar) return;
  const std::size_t at = value.source.offset_of(value.node.mark);
  const bool flow =
      at < value.source.text().size() && std::string_view("[{").find(value.source.text()[at]) != std::string_view::npos;
  value.wrong(words, flow ? quoting_hint(value.source, at) : "put the text in quotes");
}

/// Throws where a text holds what other programs cut it at, or a terminal takes for an order.
void check_control(const Value& value, bool name) {
  const auto control = control_character(value.node.text, name);
  if (!control) return;
  const bool escape = value.node.quoted && !value.node.from_option;
  value.fail(
      fmt::format("\"{}\" holds the control character U+{:04X}", value.path, *control),
      escape ? "\\ in double quotes begins an escape: put the text in single quotes, or write \\\\" : "take it out");
}

std::string in(const std::string& path) {
  return path.empty() ? "" : " in " + path;
}

/// A JSON string: names and words of ours only, but a doc line may hold quotes.
std::string json_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

}  // namespace

Shape::Shape() = default;

Shape::Shape(std::string words_, std::string schema_, std::vector<std::string_view> choices_)
    : words(std::move(words_)), schema(std::move(schema_)), choices(std::move(choices_)) {}

void Value::fail(const std::string& message, const std::string& hint) const {
  throw source.error(node.mark, message, hint);
}

void Value::wrong(const std::string& words, const std::string& hint) const {
  if (node.kind == YamlNode::Kind::Null)
    fail(fmt::format("\"{}\" has no value", path),
         is_commented_out(source, node.mark) ? "# begins a comment: put the text in quotes" : "it must be " + words);
  fail(fmt::format("\"{}\" must be {}, not {}", path, words, describe(node)), hint);
}

Value Value::item(std::size_t index) const {
  return {node.items[index], source, fmt::format("{}.{}", path, index)};
}

Value Value::entry(const YamlNode::Entry& entry) const {
  return {entry.value, source, path.empty() ? entry.key : path + "." + entry.key};
}

Section::Section(const Value& value) : value_(&value) {}

Mark Section::mark_of(std::string_view name) const {
  const YamlNode::Entry* entry = value_ ? value_->node.find(name) : nullptr;
  return entry ? entry->value.mark : mark();
}

void Section::fail(std::string_view name, const std::string& message, const std::string& hint) const {
  throw value_->source.error(mark_of(name), message, hint);
}

bool Section::describes(std::string_view name, Need need, std::string_view doc) {
  if (!description_) return false;
  description_->push_back({std::string(name), {}, {}, std::string(doc), need == Need::Required});
  shape_ = &description_->back().shape;
  standard_ = &description_->back().standard;
  return true;
}

const YamlNode::Entry* Section::look_up(std::string_view name, Need need) {
  stated_.push_back(name);
  const YamlNode::Entry* entry = value_->node.find(name);
  if (!entry && need == Need::Required) missing_.push_back(name);
  return entry;
}

void Section::finish() const {
  for (const YamlNode::Entry& entry : value_->node.entries) {
    if (std::find(stated_.begin(), stated_.end(), entry.key) != stated_.end()) continue;
    std::string hint = unknown_key_hint(entry.key, value_->path, stated_);
    if (entry.value.kind == YamlNode::Kind::Null && entry.key.find(':') == std::string::npos &&
        is_without_colon(value_->source, entry.mark, entry.key))
      hint = "the comma ends the text before it: put that text in quotes";
    throw value_->source.error(entry.mark, fmt::format("unknown key \"{}\"{}", entry.key, in(value_->path)), hint);
  }
  if (!missing_.empty())
    throw value_->source.error(mark(), fmt::format("missing key \"{}\"{}", missing_.front(), in(value_->path)));
}

Type<std::string> text() {
  return {[] {
            Shape shape{"text", R"({"type":"string"})"};
            shape.is_text = true;
            return shape;
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Scalar; },
          [](const Value& value) {
            check_is_text(value, "text");
            check_control(value, /*name=*/false);
            return value.node.text;
          },
          [](const std::string& shown) { return shown.empty() ? shown : json_string(shown); }};
}

Type<FileReference> file() {
  return {[] {
            Shape shape{"a file", R"({"type":"string","minLength":1})"};
            shape.is_text = true;
            return shape;
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Scalar; },
          [](const Value& value) {
            check_is_text(value, "the name of a file");
            if (value.node.text.empty()) value.wrong("the name of a file");
            check_control(value, /*name=*/true);
            return FileReference{value.node.text, {}, value.node.mark, value.node.from_option};
          },
          [](const FileReference& shown) { return shown.text; }};
}

Type<int> integer(int least, int most) {
  const std::string words = fmt::format("an integer from {} to {}", least, most);
  return {[=] {
            return Shape{words, fmt::format(R"({{"type":"integer","minimum":{},"maximum":{}}})", least, most)};
          },
          looks_like_integer,
          [=](const Value& value) {
            int result = 0;
            const std::string& digits = value.node.text;
            const auto fault = std::from_chars(digits.data(), digits.data() + digits.size(), result).ec;
            if (!looks_like_integer(value.node) || fault != std::errc{} || result < least || result > most)
              value.wrong(words);
            return result;
          },
          [](const int& shown) { return fmt::format("{}", shown); }};
}

Type<int> integer_or_auto(int least, int most) {
  return either<int>({choice<int>({{"auto", 0}}), integer(least, most)});
}

Type<double> number(double least, double most) {
  const std::string words = fmt::format("a number from {} to {}", least, most);
  return {[=] {
            return Shape{words, fmt::format(R"({{"type":"number","minimum":{},"maximum":{}}})", least, most)};
          },
          [](const YamlNode& node) { return to_number(node).has_value(); },
          [=](const Value& value) {
            const auto result = to_number(value.node);
            if (!result || *result < least || *result > most) value.wrong(words);
            return *result;
          },
          [](const double& shown) { return fmt::format("{}", shown); }};
}

Type<bool> boolean() {
  return {[] {
            return Shape{"true or false", R"({"type":"boolean"})", {"true", "false"}};
          },
          [](const YamlNode& node) { return fields::is_word(node, "true") || fields::is_word(node, "false"); },
          [](const Value& value) {
            if (!fields::is_word(value.node, "true") && !fields::is_word(value.node, "false"))
              value.wrong("true or false");
            return value.node.text == "true";
          },
          [](const bool& shown) { return std::string(shown ? "true" : "false"); }};
}

Type<std::uint64_t> memory_size() {
  const std::string words = "a size such as 8GB";
  return {[=] {
            return Shape{words, R"({"type":"string","pattern":"^[0-9.]+ *([KkMmGg][Ii]?)?[Bb]$"})"};
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Scalar; },
          [=](const Value& value) {
            const auto bytes = to_bytes(value.node);
            if (!bytes) value.wrong(words, size_hint(value.node.text));
            return *bytes;
          },
          [](const std::uint64_t& shown) { return fmt::format("{}", shown); }};
}

Type<DeviceId> device() {
  const std::string words = "a device: cuda:N, cpu or cpu:N";
  return {[=] {
            return Shape{
                words, R"({"type":["string","integer"],"pattern":"^(cuda:[0-9]+|cpu(:[0-9]+)?|[0-9]+)$","minimum":0})"};
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Scalar && parse_device(node.text); },
          [=](const Value& value) {
            const auto id = value.node.kind == YamlNode::Kind::Scalar ? parse_device(value.node.text) : std::nullopt;
            if (!id) value.wrong(words);
            return *id;
          },
          [](const DeviceId& shown) { return shown.to_string(); }};
}

bool fields::is_word(const YamlNode& node, std::string_view word) {
  return node.kind == YamlNode::Kind::Scalar && node.text == word;
}

std::string fields::one_word_of(const std::vector<std::string_view>& words) {
  if (words.size() == 1) return std::string(words.front());
  return fmt::format("{} or {}", fmt::join(words.begin(), words.end() - 1, ", "), words.back());
}

std::string fields::words_schema(const std::vector<std::string_view>& words) {
  std::string text;
  for (const std::string_view word : words) {
    text += text.empty() ? "" : ",";
    text += word == "true" || word == "false" ? std::string(word) : json_string(word);
  }
  return "{\"enum\":[" + text + "]}";
}

void fields::wrong(const Value& value, const Shape& shape) {
  const bool scalar = value.node.kind == YamlNode::Kind::Scalar;
  value.wrong(shape.words, scalar ? did_you_mean(value.node.text, shape.choices) : std::string{});
}

std::string fields::list_words(const std::string& words) {
  return "a list, each " + words;
}

std::string fields::map_schema(const std::vector<Statement>& keys) {
  std::vector<std::string> properties;
  std::vector<std::string> required;
  for (const Statement& key : keys) {
    const std::string_view rest = std::string_view(key.shape.schema).substr(1);
    properties.push_back(fmt::format("{}:{{\"description\":{},{}", json_string(key.name), json_string(key.doc), rest));
    if (key.required) required.push_back(json_string(key.name));
  }
  const std::string demand = required.empty() ? "" : fmt::format("\"required\":[{}],", fmt::join(required, ","));
  return fmt::format(R"({{"type":"object","additionalProperties":false,{}"properties":{{{}}}}})", demand,
                     fmt::join(properties, ","));
}

std::string fields::either_schema(const std::vector<std::string>& schemas) {
  return fmt::format("{{\"anyOf\":[{}]}}", fmt::join(schemas, ","));
}

}  // namespace mgpu
