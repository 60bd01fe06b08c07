#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/job/source.h"

namespace mgpu {

// What people write that YAML reads otherwise than they mean, and how it is said.

/// The byte behind the closing quote of the text that the quote at `begin` opens; npos where nothing closes it.
std::size_t end_of_quoted(std::string_view text, std::size_t begin);

/// A text in quotes; `end` is end_of_quoted.
struct QuotedText {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool in_flow = false;  ///< inside [ ] or { }
};

/// The texts in quotes of a YAML source, in order, up to one that nothing closes. Keeps to where quotes may stand, so
/// that those of comments, blocks and the inside of plain text do not count.
std::vector<QuotedText> quoted_texts(std::string_view text);

/// "the text that begins at job.yaml:10:13 has no closing quote", at that place.
Error unclosed_quote(const Source& source, std::size_t begin, std::string hint = {});

/// The error for what a YAML parser said of byte `at` (npos: it named none): at the beginning of the text that has to
/// be put in quotes or lacks one, where that is what is wrong.
Error syntax_error(const Source& source, std::size_t at, const std::string& said);

/// How to write the flow collection, alias or the like at `begin` as text: `put the text in quotes: '[fox], "x"'`.
std::string quoting_hint(const Source& source, std::size_t begin);

/// Whether a comment follows the key at `key` in its line, where its value should be: `prompt: #1 fox`.
bool is_commented_out(const Source& source, const Mark& key);

/// Whether no colon follows the key at `key`: what a comma in unquoted text leaves, `{prompt: a fox, in snow}`.
bool is_without_colon(const Source& source, const Mark& key, std::string_view name);

}  // namespace mgpu
