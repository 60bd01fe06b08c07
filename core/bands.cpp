#include "core/bands.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace mgpu {
namespace {

/// `range` in pieces of nearly equal size, of at most `most` each.
void cut(const RowRange& range, std::int64_t most, std::vector<RowRange>& out) {
  const std::int64_t pieces = ceil_div(range.size(), std::max<std::int64_t>(most, 1));
  const std::int64_t piece = ceil_div(range.size(), std::max<std::int64_t>(pieces, 1));
  for (std::int64_t first = range.first; first < range.last; first += piece)
    out.push_back({first, std::min(first + piece, range.last)});
}

}  // namespace

BandRules band_rules(bool on_gpu) {
  if (on_gpu) return {};
  return {.unit_values = 1 << 14, .strip_values = 1 << 20, .score_values = 1 << 22, .least_queries = 1};
}

Bands::Bands(std::int64_t rows, std::int64_t width, std::int64_t channels, const BandRules& rules)
    : rows_(rows), width_(width), rules_(rules) {
  MGPU_CHECK(rows > 0 && width > 0 && channels > 0, "an image of {} rows of {} pixels of {} values", rows, width,
             channels);
  const std::int64_t units = ceil_div(rows, std::max<std::int64_t>(rules.unit_values / (width * channels), 1));
  unit_ = ceil_div(rows, units);
}

std::int64_t Bands::scale(std::int64_t width) const {
  MGPU_CHECK_EQ(width % width_, 0);
  return width / width_;
}

RowRange Bands::rows(const RowRange& units, std::int64_t width) const {
  const auto row = [&](std::int64_t unit) { return std::min(unit * unit_, rows_) * scale(width); };
  return {row(units.first), row(units.last)};
}

std::vector<RowRange> Bands::strips(const RowRange& units, std::int64_t width, std::int64_t channels) const {
  std::vector<RowRange> out;
  for (std::int64_t unit = units.first; unit < units.last; ++unit)
    cut(rows({unit, unit + 1}, width), rules_.strip_values / (width * channels), out);
  return out;
}

std::vector<RowRange> Bands::query_pieces(const RowRange& units) const {
  std::vector<RowRange> out;
  for (std::int64_t unit = units.first; unit < units.last; ++unit) {
    const RowRange of_unit = rows({unit, unit + 1}, width_);
    cut({of_unit.first * width_, of_unit.last * width_},
        std::max(rules_.score_values / (rows_ * width_), rules_.least_queries), out);
  }
  return out;
}

std::vector<RowRange> deal_units(std::int64_t units, std::span<const double> speeds) {
  const double all = std::reduce(speeds.begin(), speeds.end());
  std::vector<RowRange> out;
  double sum = 0.0;
  for (const double speed : speeds) {
    const std::int64_t first = out.empty() ? 0 : out.back().last;
    sum += speed;
    out.push_back({first, std::max<std::int64_t>(first, std::llround(static_cast<double>(units) * sum / all))});
  }
  out.back().last = units;
  return out;
}

}  // namespace mgpu
