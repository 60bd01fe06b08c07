#pragma once

#include <cstdint>
#include <string_view>

namespace mgpu {

/// The value of a line such as "VmRSS:   1234 kB" of a file in /proc, in bytes; 0 where there is none.
std::uint64_t proc_bytes(const char* file, std::string_view key);

/// What was resident when this was first asked for: this program and its libraries. Asked for again it is the same, so
/// that a run's later jobs are planned and measured as its first.
std::uint64_t program_bytes();

}  // namespace mgpu
