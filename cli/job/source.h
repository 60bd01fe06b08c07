#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace mgpu {

/// The text that values were read from, kept so that an error can quote the line. Places are asked for in any order,
/// and each answer takes the same time however long the line is: programs write a job of 10,000 pictures on one.
class Source {
 public:
  Source(std::string name, std::string text);
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  const std::string& name() const { return name_; }
  const std::string& text() const { return text_; }

  /// A line's text, from 1, without its end; "" when there is none.
  std::string_view line(int number) const;
  /// The place of a byte of the text; that of its end for any larger number.
  Mark mark_at(std::size_t offset) const;
  /// The byte at a place; npos for one that is not in this text.
  std::size_t offset_of(const Mark& mark) const;
  /// The line with its number and a caret below `mark`, or "" when the mark names no line. Of a long line it is a
  /// window around the caret.
  std::string excerpt(const Mark& mark) const;
  /// The place of byte `offset` of a scalar's text that begins at `mark`; `mark` itself where the text does not stand
  /// in one line as it reads (escapes, blocks, options).
  Mark inside(const Mark& mark, std::string_view text, std::size_t offset) const;
  /// An error (exit 2) at `mark` that quotes the line. A message or hint of more than 600 bytes, which quotes what the
  /// user wrote, is cut in its middle.
  Error error(const Mark& mark, std::string message, std::string hint = {}) const;

 private:
  std::size_t begin_of(std::string_view line) const;
  std::size_t characters_before(std::size_t offset) const;

  std::string name_;
  std::string text_;
  std::vector<std::string_view> lines_;
  std::vector<std::size_t> characters_;  ///< that begin before each block of the text
};

/// UTF-8 text of at most `most` bytes, where need be without its middle: "beginning ... end".
std::string without_middle(std::string text, std::size_t most);

}  // namespace mgpu
