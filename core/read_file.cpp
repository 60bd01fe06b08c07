#include "core/read_file.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/descriptor.h"
#include "core/error.h"

namespace mgpu {

std::string special_kind(const struct stat& info) {
  if (S_ISREG(info.st_mode)) return {};
  if (S_ISDIR(info.st_mode)) return "a directory";
  if (S_ISFIFO(info.st_mode)) return "a FIFO";
  return S_ISSOCK(info.st_mode) ? "a socket" : "a device";
}

std::string special_kind(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? special_kind(info) : std::string();
}

std::string read_file(const std::string& path, std::uint64_t most) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  struct stat info {};
  if (!file.is_open() && errno == ENXIO) fail_file(path, "is a socket, not a regular file");
  if (!file.is_open() && errno == ENOENT) fail_file(path, "no such file");
  if (!file.is_open() || ::fstat(file.get(), &info) != 0)
    fail_file(path, fmt::format("cannot be read: {}", std::strerror(errno)));
  if (const std::string kind = special_kind(info); !kind.empty())
    fail_file(path, fmt::format("is {}, not a regular file", kind));
  const auto refuse_size = [&](std::uint64_t bytes) {
    fail_file(path, fmt::format("has {} bytes, more than the {} that are read", bytes, most));
  };
  if (static_cast<std::uint64_t>(info.st_size) > most) refuse_size(static_cast<std::uint64_t>(info.st_size));
  std::string bytes(static_cast<std::size_t>(info.st_size) + 1, '\0');  // one more, to see the end
  std::size_t have = 0;
  while (true) {
    const ssize_t got = ::read(file.get(), bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_file(path, fmt::format("cannot be read: {}", std::strerror(errno)));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
    if (have > most) refuse_size(have);
    if (have == bytes.size()) bytes.resize(have + std::max<std::size_t>(have / 2, 4096));  // of /proc, or it grows
  }
  bytes.resize(have);
  return bytes;
}

}  // namespace mgpu
