#include "core/strings.h"

#include <fmt/format.h>

#include <algorithm>

namespace mgpu {
namespace {

/// The Levenshtein distance of `a` and `b`, or `limit` + 1 when it is more than `limit`.
std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t limit) {
  if ((a.size() > b.size() ? a.size() - b.size() : b.size() - a.size()) > limit) return limit + 1;
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    std::size_t least = row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
      least = std::min(least, row[j]);
    }
    if (least > limit) return limit + 1;
  }
  return std::min(row.back(), limit + 1);
}

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kMost = 200;
  std::string out = "\"";
  for (const char c : text.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  if (text.size() > kMost) out += "...";
  return out + "\"";
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string out = "[";
  for (const std::int64_t dim : shape) out += fmt::format("{}{}", out.size() > 1 ? ", " : "", dim);
  return out + "]";
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr std::uint64_t kKilo = 1024, kMega = kKilo * 1024, kGiga = kMega * 1024;
  const auto in = [&](std::uint64_t unit, const char* name) {
    const double value = static_cast<double>(bytes) / static_cast<double>(unit);
    return value < 99.95 ? fmt::format("{:.1f} {}", value, name) : fmt::format("{:.0f} {}", value, name);
  };
  if (bytes >= kGiga) return in(kGiga, "GB");
  if (bytes >= kMega) return in(kMega, "MB");
  if (bytes >= kKilo) return in(kKilo, "KB");
  return fmt::format("{} byte{}", bytes, bytes == 1 ? "" : "s");
}

std::string nearest(std::string_view wanted, std::span<const std::string_view> candidates) {
  std::size_t limit = std::max<std::size_t>(wanted.size() / 3, 1);
  std::string best;
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = edit_distance(wanted, candidate, limit);
    if (distance > limit) continue;
    best = candidate;
    if (distance == 0) break;
    limit = distance - 1;
  }
  return best;
}

}  // namespace mgpu
