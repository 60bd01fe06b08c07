#pragma once

#include <cstdint>
#include <string_view>

namespace mgpu {

/// The value of a line such as "VmRSS:   1234 kB" of a file in /proc, in bytes; 0 where there is none.
std::uint64_t proc_bytes(const char* file, std::string_view key);

}  // namespace mgpu
