#pragma once

#include <cstdint>
#include <string>

struct stat;

namespace mgpu {

/// "a directory", "a FIFO", "a socket", "a device"; "" for a regular file.
std::string special_kind(const struct stat& info);

/// The kind of what lies at a path, links followed: "" for a regular file, and where nothing is there.
std::string special_kind(const std::string& path);

/// All that a regular file holds. Throws Error (exit 2) that names the file where it is missing, cannot be read, is a
/// directory, FIFO, socket or device (which could keep the reader waiting for ever), or has more than `most` bytes.
std::string read_file(const std::string& path, std::uint64_t most = std::uint64_t{4} << 30);

}  // namespace mgpu
