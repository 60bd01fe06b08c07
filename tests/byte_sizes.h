#pragma once

#include <cstdint>

namespace mgpu::test {

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kGiB = std::uint64_t{1} << 30;

}  // namespace mgpu::test
