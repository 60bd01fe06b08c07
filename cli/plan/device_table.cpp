#include "cli/plan/device_table.h"

#include <fmt/format.h>

namespace mgpu {
namespace {

double in_gib(std::uint64_t bytes) {
  return static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0);
}

}  // namespace

std::string device_table_head(std::string_view peaks) {
  return fmt::format("{:<8} {:<10} {:>16} {:>10} {:>8} | {:>17} {:>8} {:>8}  GiB", "device", "component", "blocks",
                     "weights", "limit", peaks, "sample", "decode");
}

std::string memory_columns(std::uint64_t limit, const PhaseBytes& peak) {
  return fmt::format("{:>8.2f} | {:>17.2f} {:>8.2f} {:>8.2f}", in_gib(limit), in_gib(peak.encode), in_gib(peak.sample),
                     in_gib(peak.decode));
}

std::string device_rows(std::string_view id, const std::vector<Assignment>& assignments, const std::string& memory) {
  if (assignments.empty()) return fmt::format("{:<8} {:<10} {:>16} {:>10} {}\n", id, "-", "-", "-", memory);
  std::string text;
  for (auto a = assignments.begin(); a != assignments.end();) {
    // Streamed blocks stand between others: one row for all of a kind.
    const auto begin = a;
    int streamed = 0;
    std::uint64_t bytes = 0;
    for (; a != assignments.end() && a->component == begin->component && a->kind == begin->kind; ++a) {
      streamed += a->streamed ? a->blocks : 0;
      bytes += a->bytes;
    }
    const std::string some = streamed > 0 ? fmt::format(" {}*", streamed) : "";
    const std::string blocks = fmt::format("{} {}-{}{}", begin->kind, begin->first, (a - 1)->last, some);
    const bool first = begin == assignments.begin();
    text += fmt::format("{:<8} {:<10} {:>16} {:>10.2f}{}\n", first ? id : "", begin->component, blocks, in_gib(bytes),
                        first ? " " + memory : "");
  }
  return text;
}

}  // namespace mgpu
