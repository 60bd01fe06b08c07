#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/job/source.h"

namespace mgpu {

/// A YAML value that knows where it stands. Aliases are expanded; tags other than YAML's own are refused.
struct YamlNode {
  enum class Kind : std::uint8_t { Null, Scalar, List, Map };
  struct Entry;

  Kind kind = Kind::Null;
  std::string text;          ///< of a scalar
  bool quoted = false;       ///< a scalar in quotes or a block is text, whatever it looks like
  int last_line = 0;         ///< in which a text in quotes ends
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

/// Offset of the first byte that is not UTF-8 text, or npos. NUL is none.
std::size_t find_invalid_utf8(std::string_view text);

/// Throws Error (exit 2) at a byte that is no UTF-8 text and at a control character other than tabs and line ends.
void check_characters(const Source& source);

/// Parses one YAML document. Throws Error (exit 2) with its place for a syntax error, a repeated key, a key that is not
/// a scalar, text that is not UTF-8, control characters, several documents, and aliases that would expand without end.
/// Takes any bytes, in a time that grows with their number. In text that begins with `{` or `[` it takes JSON's
/// surrogate pairs ("\ud83e\udd8a") too, which YAML has not.
YamlNode parse_yaml(const Source& source);

}  // namespace mgpu
