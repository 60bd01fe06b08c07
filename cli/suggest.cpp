#include "cli/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "core/edit_distance.h"

namespace mgpu {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

std::string did_you_mean(std::string_view written, std::span<const std::string_view> candidates) {
  if (written.size() > 64) return {};
  const std::string_view* nearest = nullptr;
  int least = std::max<int>(1, static_cast<int>(written.size()) / 3) + 1;
  for (const std::string_view& candidate : candidates) {
    const int distance = edit_distance(lower(written), lower(candidate));
    if (distance < least) {
      least = distance;
      nearest = &candidate;
    }
  }
  return nearest ? fmt::format("did you mean \"{}\"?", *nearest) : std::string{};
}

std::string one_of(std::span<const std::string_view> names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += fmt::format("{}\"{}\"", i == 0 ? "" : i + 1 == names.size() ? " or " : ", ", names[i]);
  return text;
}

}  // namespace mgpu
