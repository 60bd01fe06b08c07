#include "core/strings.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/edit_distance.h"

namespace mgpu {
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

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
    const bool c1 = byte == 0xC2 && next >= 0x80 && next < 0xA0;
    if (c1) ++i;
    if (c1 || (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f)
      out += fmt::format("\\x{:02x}", c1 ? next : byte);
    else
      out += text[i];
  }
  return out;
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
  int least = std::max(static_cast<int>(wanted.size()) / 3, 1) + 1;
  std::string best;
  for (const std::string_view candidate : candidates) {
    const int distance = edit_distance(wanted, candidate);
    if (distance >= least) continue;
    best = candidate;
    least = distance;
  }
  return best;
}

}  // namespace mgpu
