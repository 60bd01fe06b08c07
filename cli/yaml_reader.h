#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace mgpu {

/// The text that values were read from, kept so that an error can quote the line.
class Source {
 public:
  Source(std::string name, std::string text);
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  const std::string& name() const { return name_; }
  const std::string& text() const { return text_; }

  /// A line's text, from 1, without its end; "" when there is none.
  std::string_view line(int number) const;
  /// The line with its number and a caret below `mark`, or "" when the mark names no line.
  std::string excerpt(const Mark& mark) const;
  /// The place of byte `offset` of a scalar's text that begins at `mark`; `mark` itself where the text does not stand
  /// in one line as it reads (escapes, blocks, options).
  Mark inside(const Mark& mark, std::string_view text, std::size_t offset) const;
  /// An error (exit 2) at `mark` that quotes the line.
  Error error(const Mark& mark, std::string message, std::string hint = {}) const;

 private:
  std::string name_;
  std::string text_;
  std::vector<std::string_view> lines_;
};

/// A YAML value that knows where it stands. Aliases are expanded; tags other than YAML's own are refused.
struct YamlNode {
  enum class Kind : std::uint8_t { Null, Scalar, List, Map };
  struct Entry;

  Kind kind = Kind::Null;
  std::string text;          ///< of a scalar
  bool quoted = false;       ///< a scalar in quotes or a block is text, whatever it looks like
  Mark mark;                 ///< columns count code points, from 1
  bool from_option = false;  ///< given by --set
  std::vector<YamlNode> items;
  std::vector<Entry> entries;  ///< of a map, in order, keys unique

  const Entry* find(std::string_view key) const;
};

struct YamlNode::Entry {
  std::string key;
  Mark mark;  ///< of the key
  YamlNode value;
};

/// Parses one YAML document. Throws Error (exit 2) with its place for a syntax error, a repeated key, a key that is not
/// a scalar, text that is not UTF-8, several documents, and aliases that would expand without end. Takes any bytes.
/// In text that begins with `{` or `[` it takes JSON's surrogate pairs ("\ud83e\udd8a") too, which YAML has not.
YamlNode parse_yaml(const Source& source);

/// Sets the value at `path` ("sampler.steps", "images.0.seed") to the YAML text `value`, making maps on the way; what
/// it puts in is marked "--set path=value". Throws Error when the path does not lead anywhere.
void set_value(YamlNode& root, const std::string& path, const std::string& value);

}  // namespace mgpu
