#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// `did you mean "x"?` for the candidate nearest to what was written in capitals or not, or "" when none is near.
/// Candidates are in lower case.
std::string did_you_mean(std::string_view written, std::span<const std::string_view> candidates);

/// The names in quotes: `"a", "b" or "c"`.
std::string one_of(std::span<const std::string_view> names);

}  // namespace mgpu
