#include "shard/split.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

namespace mgpu {
namespace {

constexpr double kAny = std::numeric_limits<double>::infinity();

/// The most that each device may cost.
struct Bounds {
  double lacks = kAny, offloaded = kAny, time = kAny;

  bool allow(const RunCosts& costs) const {
    return costs.lacks <= lacks && costs.offloaded <= offloaded && costs.time <= time;
  }
};

/// Finds the best cut, where add(value, costs, is_used) gives what a run's costs make of the value before it. Where
/// there are more devices than may have a run, or a second variant to place, a state says how many have one, and
/// whether it is placed.
template <class Value>
class Solver {
 public:
  Solver(const CostTable& table, const SplitLimits& limits)
      : table_(table),
        ends_(static_cast<std::size_t>(table.units()) + 1),
        most_(limits.most_devices == 0 || limits.most_devices >= table.devices() ? 0 : limits.most_devices),
        layers_((most_ + 1) * table.variants()) {}

  template <class Add>
  std::optional<Value> solve(const Bounds& bounds, Value start, Add add, Split* split = nullptr) {
    std::vector<std::optional<Value>> before(layers_ * ends_);
    before[0] = start;
    came_.clear();
    if (split) came_.assign(table_.devices(), std::vector<Origin>(layers_ * ends_));
    for (std::size_t device = 0; device < table_.devices(); ++device) {
      std::vector<std::optional<Value>> after(layers_ * ends_);
      for (std::size_t layer = 0; layer < layers_; ++layer)
        for (int first = 0; first <= table_.units(); ++first)
          if (const auto& value = before[layer * ends_ + static_cast<std::size_t>(first)])
            extend(device, layer, first, *value, bounds, add, after);
      before = std::move(after);
    }
    std::optional<std::size_t> best;
    for (std::size_t used = 0; used <= most_; ++used) {
      const std::size_t at = (used * table_.variants() + table_.variants() - 1) * ends_ + ends_ - 1;
      if (before[at] && (!best || *before[at] < *before[*best])) best = at;
    }
    if (!best) return std::nullopt;
    if (split) *split = trace(*best);
    return before[*best];
  }

 private:
  struct Origin {
    std::uint32_t state = 0;
    bool second = false;
  };

  template <class Add>
  void extend(std::size_t device, std::size_t layer, int first, const Value& value, const Bounds& bounds, Add add,
              std::vector<std::optional<Value>>& after) {
    const std::size_t used = layer / table_.variants(), placed = layer % table_.variants();
    for (int last = first; last <= table_.units(); ++last) {
      const std::size_t now = most_ == 0 ? 0 : used + (last > first ? 1 : 0);
      if (now > most_) return;
      for (std::size_t variant = 0; variant + placed < table_.variants(); ++variant) {
        const RunCosts& costs = table_.at(device, variant, {first, last});
        if (!bounds.allow(costs)) continue;
        const Value next = add(value, costs, last > first);
        const std::size_t to = (now * table_.variants() + placed + variant) * ends_ + static_cast<std::size_t>(last);
        if (after[to] && !(next < *after[to])) continue;
        after[to] = next;
        if (!came_.empty())
          came_[device][to] = {static_cast<std::uint32_t>(layer * ends_ + static_cast<std::size_t>(first)),
                               variant > 0};
      }
    }
  }

  Split trace(std::size_t state) const {
    Split out{.runs = std::vector<ChainRange>(table_.devices())};
    for (std::size_t device = table_.devices(); device-- > 0;) {
      const Origin& origin = came_[device][state];
      out.runs[device] = {static_cast<int>(origin.state % ends_), static_cast<int>(state % ends_)};
      if (origin.second) out.second = device;
      state = origin.state;
    }
    return out;
  }

  const CostTable& table_;
  std::size_t ends_, most_, layers_;
  std::vector<std::vector<Origin>> came_;  ///< by device and state
};

/// The least that the largest of a cost can be.
double least_largest(const CostTable& table, const SplitLimits& limits, const Bounds& bounds, double RunCosts::*cost) {
  return *Solver<double>(table, limits).solve(bounds, 0.0, [cost](double value, const RunCosts& costs, bool) {
    return std::max(value, costs.*cost);
  });
}

using Sums = std::array<double, 5>;

/// What a cut's sum is of.
struct CostWeights {
  double time = 0.0, offloaded = 0.0, per_device = 0.0;
};

/// The best by the sums of costs, and of the ties.
Split least_sum(const CostTable& table, const SplitLimits& limits, const Bounds& bounds, const CostWeights& weights) {
  Split out;
  Solver<Sums>(table, limits)
      .solve(
          bounds, Sums{},
          [&](Sums value, const RunCosts& costs, bool used) {
            value[0] +=
                weights.time * costs.time + weights.offloaded * costs.offloaded + (used ? weights.per_device : 0.0);
            for (std::size_t i = 0; i < costs.ties.size(); ++i) value[i + 1] += costs.ties[i];
            return value;
          },
          &out);
  return out;
}

Bounds least_lacks(const CostTable& table, const SplitLimits& limits) {
  Bounds out;
  out.lacks = least_largest(table, limits, out, &RunCosts::lacks);
  return out;
}

double offloaded_by(const CostTable& table, const Split& split) {
  double out = 0.0;
  for (std::size_t d = 0; d < table.devices(); ++d) {
    const std::size_t variant = table.variants() > 1 && split.second == d ? 1 : 0;
    out += table.at(d, variant, split.runs[d]).offloaded;
  }
  return out;
}

/// Times of all runs within bounds, in order.
std::vector<double> times_of(const CostTable& table, const Bounds& bounds, double least) {
  std::vector<double> times;
  for (std::size_t d = 0; d < table.devices(); ++d)
    for (std::size_t variant = 0; variant < table.variants(); ++variant)
      for (int first = 0; first <= table.units(); ++first)
        for (int last = first; last <= table.units(); ++last)
          if (const RunCosts& costs = table.at(d, variant, {first, last}); bounds.allow(costs) && costs.time >= least)
            times.push_back(costs.time);
  std::ranges::sort(times);
  times.erase(std::unique(times.begin(), times.end()), times.end());
  return times;
}

/// The cut of the least largest time that lends no more than the limits say; that which lends least, if none does.
Split even_within(const CostTable& table, const SplitLimits& limits, Bounds bounds) {
  const std::vector<double> times = times_of(table, bounds, bounds.time);
  bounds.offloaded = kAny;
  const auto offloads_least = [&](double bound) {
    bounds.time = bound;
    return least_sum(table, limits, bounds, {.offloaded = 1.0});
  };
  const auto best = std::ranges::partition_point(times, [&](double bound) {
    bounds.time = bound;
    const auto offloaded =
        Solver<double>(table, limits).solve(bounds, 0.0, [](double value, const RunCosts& costs, bool) {
          return value + costs.offloaded;
        });
    return *offloaded > limits.most_offloaded;
  });
  return offloads_least(best == times.end() ? times.back() : *best);
}

/// The cut of a small sum of times that lends no more than the limits say: a byte lent counts as so much time as it
/// takes to keep to them. That which lends least, if none does.
Split quick_within(const CostTable& table, const SplitLimits& limits, const Bounds& bounds) {
  constexpr int kHalvings = 24;
  Split best = least_sum(table, limits, bounds, {.offloaded = 1.0});
  if (offloaded_by(table, best) > limits.most_offloaded) return best;
  double too_little = 0.0, enough = 0x1p-10;
  for (int i = 0; i < kHalvings; ++i) {
    const double weight = i == 0 ? enough : (too_little + enough) / 2;
    const Split split =
        least_sum(table, limits, bounds, {.time = 1.0, .offloaded = weight, .per_device = limits.hand_over});
    const bool is_enough = offloaded_by(table, split) <= limits.most_offloaded;
    (is_enough ? enough : too_little) = weight;
    if (is_enough) best = split;
  }
  return best;
}

}  // namespace

Split even_split(const CostTable& table, SplitBy by, const SplitLimits& limits) {
  Bounds bounds = least_lacks(table, limits);
  if (by == SplitBy::OffloadedThenTime) bounds.offloaded = least_largest(table, limits, bounds, &RunCosts::offloaded);
  bounds.time = least_largest(table, limits, bounds, &RunCosts::time);
  if (by == SplitBy::TimeThenOffloaded) bounds.offloaded = least_largest(table, limits, bounds, &RunCosts::offloaded);
  Split out = least_sum(table, limits, bounds, {});
  const bool offloads_too_much = by == SplitBy::TimeThenOffloaded && offloaded_by(table, out) > limits.most_offloaded;
  return offloads_too_much ? even_within(table, limits, bounds) : out;
}

Split quick_split(const CostTable& table, const SplitLimits& limits) {
  Bounds bounds = least_lacks(table, limits);
  const double least = least_largest(table, limits, bounds, &RunCosts::time);
  // The looser the bound on each time, the less their sum: the best is where the two come to the same.
  const std::vector<double> times = times_of(table, bounds, least);
  const auto mean_within = [&](double bound) {
    Bounds within = bounds;
    within.time = bound;
    const auto sum =
        Solver<double>(table, limits).solve(within, 0.0, [&](double value, const RunCosts& costs, bool used) {
          return value + costs.time + (used ? limits.hand_over : 0.0);
        });
    return (*sum - limits.hand_over) / limits.passes;
  };
  bounds.time = times.back();
  if (limits.passes > 1.0) {
    const auto first = std::ranges::partition_point(times, [&](double bound) { return mean_within(bound) > bound; });
    bounds.time = first == times.end() ? times.back() : *first;
    if (first != times.begin() && first != times.end() && mean_within(*(first - 1)) < *first)
      bounds.time = *(first - 1);
  }
  Split out = least_sum(table, limits, bounds, {.time = 1.0, .per_device = limits.hand_over});
  if (offloaded_by(table, out) <= limits.most_offloaded) return out;
  bounds.time = kAny;
  return quick_within(table, limits, bounds);
}

Split thrifty_split(const CostTable& table, const SplitLimits& limits) {
  return least_sum(table, limits, least_lacks(table, limits), {.offloaded = 1.0});
}

}  // namespace mgpu
