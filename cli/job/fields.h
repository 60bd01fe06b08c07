#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/yaml_reader.h"

// How a job's keys are stated: one line names the key, its type, range and doc, and the struct's initial value is its
// default. The same line reads the key, and describes it in the JSON Schema and the reference page.

namespace mgpu {

struct Statement;

/// What is said of a type.
struct Shape {
  Shape();
  Shape(std::string words, std::string schema, std::vector<std::string_view> choices = {});

  std::string words;                      ///< "an integer from 1 to 10000"
  std::string schema;                     ///< JSON Schema
  std::vector<std::string_view> choices;  ///< fixed words among the values
  std::vector<Statement> keys;            ///< of a map, or of the maps in a list
  bool is_text = false;                   ///< text or a file's name, which --set takes as it stands
  bool items_are_text = false;            ///< of a list
  std::string below;                      ///< what stands between the key and those keys in a path: "" or "[]"
};

/// What is said of a key.
struct Statement {
  std::string name;
  Shape shape;
  std::string standard;  ///< the default as YAML; empty for none
  std::string doc;
  bool required = false;
};

/// A node to be read, where it came from and its path in the job.
struct Value {
  const YamlNode& node;
  const Source& source;
  std::string path;

  [[noreturn]] void fail(const std::string& message, const std::string& hint = {}) const;
  /// "sampler.steps" must be `words`, not ...
  [[noreturn]] void wrong(const std::string& words, const std::string& hint = {}) const;
  Value item(std::size_t index) const;
  Value entry(const YamlNode::Entry& entry) const;
};

/// A type of values: how it is described, recognised, read and written.
template <class T>
struct Type {
  std::function<Shape()> shape;
  std::function<bool(const YamlNode&)> accepts;  ///< by its outside alone: what `either` chooses by
  std::function<T(const Value&)> read;
  std::function<std::string(const T&)> show;  ///< as YAML; "" where there is nothing to show
};

enum class Need : std::uint8_t { Optional, Required };

/// A map of the job, read key by key, or being described.
class Section {
 public:
  explicit Section(const Value& value);
  explicit Section(std::vector<Statement>& description) : description_(&description) {}

  /// States a key: fills `target` when the job gives it and leaves it alone, as the default, when not. Says whether it
  /// was given.
  template <class T>
  bool key(std::string_view name, T& target, const Type<T>& type, std::string_view doc, Need need = Need::Optional) {
    if (describes(name, need, doc)) {
      *shape_ = type.shape();
      *standard_ = need == Need::Required ? "" : type.show(target);
      return false;
    }
    const YamlNode::Entry* entry = look_up(name, need);
    if (entry) target = type.read(value_->entry(*entry));
    return entry != nullptr;
  }

  /// The same for a value that keeps its place; a default gets that of the map.
  template <class T>
  bool key(std::string_view name, Marked<T>& target, const Type<T>& type, std::string_view doc,
           Need need = Need::Optional) {
    const bool given = key(name, target.value, type, doc, need);
    if (given) {
      target.given = true;
      target.mark = mark_of(name);
    } else if (target.mark.file.empty()) {
      target.mark = mark();
    }
    return given;
  }

  Mark mark() const { return value_ ? value_->node.mark : Mark{}; }
  Mark mark_of(std::string_view name) const;
  bool describing() const { return description_ != nullptr; }

  /// Throws at the value of a key.
  [[noreturn]] void fail(std::string_view name, const std::string& message, const std::string& hint) const;

  /// Throws for a key that nobody stated, then for a required one that is missing.
  void finish() const;

 private:
  bool describes(std::string_view name, Need need, std::string_view doc);
  const YamlNode::Entry* look_up(std::string_view name, Need need);

  const Value* value_ = nullptr;
  std::vector<Statement>* description_ = nullptr;
  Shape* shape_ = nullptr;           // of the statement being described
  std::string* standard_ = nullptr;  // likewise
  std::vector<std::string_view> stated_;
  std::vector<std::string_view> missing_;
};

// ---- The types ----

Type<std::string> text();
Type<FileReference> file();
Type<int> integer(int least, int most);
/// The same, or `auto`, which is 0.
Type<int> integer_or_auto(int least, int most);
Type<double> number(double least, double most);
Type<bool> boolean();
/// Bytes: a number with KB, MB or GB (all powers of 1024), or plain bytes.
Type<std::uint64_t> memory_size();
Type<DeviceId> device();

namespace fields {
bool is_word(const YamlNode& node, std::string_view word);
std::string one_word_of(const std::vector<std::string_view>& words);
std::string words_schema(const std::vector<std::string_view>& words);
[[noreturn]] void wrong(const Value& value, const Shape& shape);
std::string list_words(const std::string& words);
std::string map_schema(const std::vector<Statement>& keys);
std::string either_schema(const std::vector<std::string>& schemas);
}  // namespace fields

/// One of several words, each standing for a value.
template <class T>
Type<T> choice(std::vector<std::pair<std::string_view, T>> words) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : words) names.push_back(name);
  return {[names] {
            return Shape{fields::one_word_of(names), fields::words_schema(names), names};
          },
          [names](const YamlNode& node) {
            for (const std::string_view name : names)
              if (fields::is_word(node, name)) return true;
            return false;
          },
          [words, names](const Value& value) {
            for (const auto& [name, result] : words)
              if (fields::is_word(value.node, name)) return result;
            fields::wrong(value, Shape{fields::one_word_of(names), {}, names});
          },
          [words](const T& shown) {
            for (const auto& [name, result] : words)
              if (result == shown) return std::string(name);
            return std::string{};
          }};
}

/// A type whose values are made from those of another.
template <class T, class Inner>
Type<T> made_from(Type<Inner> inner, std::function<T(Inner, const Value&)> make,
                  std::function<std::string(const T&)> show) {
  return {inner.shape, inner.accepts, [inner, make](const Value& value) { return make(inner.read(value), value); },
          std::move(show)};
}

template <class T>
Type<std::vector<T>> list(Type<T> item, bool may_be_empty = true) {
  return {[item, may_be_empty] {
            const Shape one = item.shape();
            Shape shape{fields::list_words(one.words), "{\"type\":\"array\"," +
                                                           std::string(may_be_empty ? "" : "\"minItems\":1,") +
                                                           "\"items\":" + one.schema + "}"};
            shape.keys = one.keys;
            shape.below = "[]";
            shape.items_are_text = one.is_text;
            return shape;
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::List; },
          [item, may_be_empty](const Value& value) {
            if (value.node.kind != YamlNode::Kind::List) value.wrong(fields::list_words(item.shape().words));
            if (value.node.items.empty() && !may_be_empty) value.fail("\"" + value.path + "\" is empty");
            std::vector<T> result;
            for (std::size_t i = 0; i < value.node.items.size(); ++i) result.push_back(item.read(value.item(i)));
            return result;
          },
          [](const std::vector<T>&) { return std::string{}; }};
}

/// A map from devices to values.
template <class T>
Type<std::map<DeviceId, T>> per_device(Type<T> of) {
  const std::string words = "a map from devices to values";
  return {[of, words] {
            return Shape{words + ", each " + of.shape().words,
                         "{\"type\":\"object\",\"additionalProperties\":" + of.shape().schema + "}"};
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Map; },
          [of, words](const Value& value) {
            if (value.node.kind != YamlNode::Kind::Map) value.wrong(words);
            std::map<DeviceId, T> result;
            for (const YamlNode::Entry& entry : value.node.entries) {
              YamlNode key;
              key.kind = YamlNode::Kind::Scalar;
              key.text = entry.key;
              key.mark = entry.mark;
              const DeviceId id = device().read(Value{key, value.source, value.path});
              if (!result.emplace(id, of.read(value.entry(entry))).second)
                throw value.source.error(entry.mark, "device \"" + id.to_string() + "\" is given twice");
            }
            return result;
          },
          [](const std::map<DeviceId, T>&) { return std::string{}; }};
}

/// A map with stated keys, read over `base`.
template <class T>
Type<T> section(std::function<void(Section&, T&)> state, T base = {}) {
  return {[state, base] {
            Shape shape{"a map", ""};
            Section described(shape.keys);
            T target = base;
            state(described, target);
            shape.schema = fields::map_schema(shape.keys);
            return shape;
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Map; },
          [state, base](const Value& value) {
            if (value.node.kind != YamlNode::Kind::Map) value.wrong("a map");
            Section reading(value);
            T target = base;
            state(reading, target);
            reading.finish();
            return target;
          },
          [](const T&) { return std::string{}; }};
}

/// The first of several types that recognises the value by its outside; `show` comes from the first.
template <class T>
Type<T> either(std::vector<Type<T>> types) {
  const auto shape = [types] {
    Shape all;
    std::vector<std::string> schemas;
    for (const Type<T>& type : types) {
      Shape one = type.shape();
      all.words += (all.words.empty() ? "" : " or ") + one.words;
      schemas.push_back(one.schema);
      all.choices.insert(all.choices.end(), one.choices.begin(), one.choices.end());
      if (!one.keys.empty()) std::tie(all.keys, all.below) = std::pair(std::move(one.keys), one.below);
    }
    all.schema = fields::either_schema(schemas);
    return all;
  };
  return {shape,
          [types](const YamlNode& node) {
            for (const Type<T>& type : types)
              if (type.accepts(node)) return true;
            return false;
          },
          [types, shape](const Value& value) {
            for (const Type<T>& type : types)
              if (type.accepts(value.node)) return type.read(value);
            fields::wrong(value, shape());
          },
          types.front().show};
}

}  // namespace mgpu
