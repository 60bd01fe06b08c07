#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/text/prompt_notes.h"
#include "core/text/prompt_text.h"

// Any bytes as a prompt: its segments are stretches of it in their order, and nothing but parentheses, weights and
// backslashes is lost; the parts of a segment are the segment; notes come out.

namespace {

/// Whether `part` begins at or behind `at` in `whole`; moves `at` behind it.
bool follows(std::string_view whole, std::string_view part, std::size_t& at) {
  const std::size_t found = whole.find(part, at);
  if (found == std::string_view::npos) return false;
  at = found + part.size();
  return true;
}

void check(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string prompt(reinterpret_cast<const char*>(data), size);
  try {
    const bool escapes = prompt.find('\\') != std::string::npos;
    std::size_t at = 0;
    for (const mgpu::Segment& segment : mgpu::parse_weights(prompt)) {
      const bool valid = prompt.find_first_of("\xFE\xFF") == std::string::npos;  // bytes that UTF-8 never uses
      if (!escapes && valid) check(follows(prompt, segment.text, at));
      std::size_t within = 0;
      for (const mgpu::PromptPart& part : mgpu::split_marks(segment.text, true, true)) {
        check(!part.text.empty() && follows(segment.text, part.text, within));
      }
    }
    for (const std::string& name : mgpu::embedding_names(prompt)) check(!name.empty());
    for (const mgpu::PromptNote& note : mgpu::prompt_notes(prompt, size % 2 == 0)) check(note.text.size() < 600);
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
