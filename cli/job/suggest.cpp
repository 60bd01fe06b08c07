#include "cli/job/suggest.h"

#include <fmt/format.h>

#include <cctype>

#include "core/strings.h"

namespace mgpu {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

std::string did_you_mean(std::string_view written, std::span<const std::string_view> candidates) {
  constexpr std::size_t kMost = 64;  // no word of ours is nearly as long
  if (written.size() > kMost) return {};
  const std::string near = nearest(lower(written), candidates);
  return near.empty() ? near : fmt::format("did you mean \"{}\"?", near);
}

std::string one_of(std::span<const std::string_view> names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += fmt::format("{}\"{}\"", i == 0 ? "" : i + 1 == names.size() ? " or " : ", ", names[i]);
  return text;
}

}  // namespace mgpu
