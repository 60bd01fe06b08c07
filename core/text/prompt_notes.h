#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// Something in a prompt that other programs act on and that is read as words here.
struct PromptNote {
  std::string_view kind;  ///< "lora", "and", ...: the same for all of its kind
  std::string text;       ///< "\"<lora:x:1>\" is read as words: ..."
};

/// What of a prompt is read as words though it was hardly meant so, each kind once, in order: A1111's <lora:...>, AND,
/// [a:b:0.5] and [a|b], wildcards, marks of textual inversions that do not stand where ComfyUI takes them, and BREAK
/// where the model has none (`breaks`); also parentheses that weigh nothing since one is missing, and weights that are
/// no weights ("(red:1,2)", "(at 10:30)"). Throws Error as parse_weights does.
std::vector<PromptNote> prompt_notes(std::string_view prompt, bool breaks);

}  // namespace mgpu
