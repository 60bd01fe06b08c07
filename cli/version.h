#pragma once

#include <string_view>

namespace mgpu {

inline constexpr std::string_view program_name = "mgpu-render";
inline constexpr std::string_view program_version =
    "0.1.0";  // the project's version in CMakeLists.txt; a test compares them

}  // namespace mgpu
