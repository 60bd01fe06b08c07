#include "core/proc.h"

#include <cstdlib>
#include <fstream>
#include <string>

namespace mgpu {

std::uint64_t proc_bytes(const char* file, std::string_view key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  return 0;
}

std::uint64_t program_bytes() {
  static const std::uint64_t bytes = proc_bytes("/proc/self/status", "VmRSS:");
  return bytes;
}

}  // namespace mgpu
