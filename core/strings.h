#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// `text` in double quotes for an error message: control characters escaped, since names come from files that anyone
/// may have written, and cut after 200 bytes.
std::string in_quotes(std::string_view text);

/// A message for a terminal, with control characters other than line ends and tabs escaped (C1's too): what it quotes
/// may be a stranger's.
std::string printable(std::string_view text);

/// "[3072, 64]".
std::string shape_text(std::span<const std::int64_t> shape);

/// "23.8 GB", "335 MB", "512 bytes": powers of 1024, as job files count.
std::string bytes_text(std::uint64_t bytes);

/// The candidate nearest to `wanted`, when it is near enough to be what was meant (at most a third of its characters
/// differ), else "". Differences are edit_distance's; the first of equals wins.
std::string nearest(std::string_view wanted, std::span<const std::string_view> candidates);

}  // namespace mgpu
