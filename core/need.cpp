#include "core/need.h"

#include <algorithm>
#include <cmath>

namespace mgpu {

std::uint64_t DecodeNeed::Need::bytes(double share) const {
  const auto part = [&](std::uint64_t all) {
    return static_cast<std::uint64_t>(std::ceil(static_cast<double>(all) * share));
  };
  std::uint64_t most = 0;
  for (const Moment& moment : moments)
    most = std::max(most, moment.fixed + part(moment.shared) + (share < 1.0 ? part(moment.exchanged) : 0));
  return most;
}

std::vector<double> DecodeNeed::Need::shares(const std::vector<double>& speeds) const {
  std::vector<double> out;
  for (const RowRange& range : deal_units(units, speeds))
    out.push_back(static_cast<double>(range.size()) / static_cast<double>(units));
  return out;
}

std::uint64_t BlockNeed::bytes_of(int block) const {
  if (!bytes_each.empty()) return bytes_each[static_cast<std::size_t>(block)];
  const auto i = static_cast<std::uint64_t>(block), all = static_cast<std::uint64_t>(count);
  return bytes * (i + 1) / all - bytes * i / all;
}

double ComponentNeed::time() const {
  double out = 0.0;
  for (const BlockNeed& kind : blocks)
    for (int i = 0; i < kind.count; ++i) out += kind.time_of(i);
  return out;
}

}  // namespace mgpu
