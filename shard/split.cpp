#include "shard/split.h"

#include <algorithm>
#include <limits>
#include <optional>

namespace mgpu {
namespace {

using Sums = std::array<double, 2>;

/// Finds the best way to end each device's run at each unit, where `step` gives what a run adds to what comes before
/// it, or nothing where it is not allowed. Returns the last device's value and fills the runs.
template <class Value, class Step>
Value solve(int units, std::size_t devices, Value start, Step step, std::vector<Run>& runs) {
  const auto ends = static_cast<std::size_t>(units) + 1;
  std::vector<std::optional<Value>> before(ends);
  before[0] = start;
  std::vector<std::vector<int>> begins(devices, std::vector<int>(ends, 0));
  for (std::size_t device = 0; device < devices; ++device) {
    std::vector<std::optional<Value>> after(ends);
    for (int first = 0; first <= units; ++first) {
      const auto& value = before[static_cast<std::size_t>(first)];
      if (!value) continue;
      for (int last = first; last <= units; ++last) {
        const std::optional<Value> next = step(*value, device, Run{first, last});
        auto& best = after[static_cast<std::size_t>(last)];
        if (!next || (best && !(*next < *best))) continue;
        best = next;
        begins[device][static_cast<std::size_t>(last)] = first;
      }
    }
    before = std::move(after);
  }
  runs.assign(devices, {});
  int end = units;
  for (std::size_t device = devices; device-- > 0;) {
    runs[device] = {begins[device][static_cast<std::size_t>(end)], end};
    end = runs[device].first;
  }
  return *before.back();
}

/// A cost of every run on every device, worked out once.
class CostTable {
 public:
  CostTable(int units, std::size_t devices, const RunCost& cost) : ends_(static_cast<std::size_t>(units) + 1) {
    costs_.resize(devices * ends_ * ends_);
    for (std::size_t device = 0; device < devices; ++device)
      for (int first = 0; first <= units; ++first)
        for (int last = first; last <= units; ++last)
          costs_[index(device, {first, last})] = cost(device, {first, last});
  }
  double operator()(std::size_t device, Run run) const { return costs_[index(device, run)]; }

 private:
  std::size_t index(std::size_t device, Run run) const {
    return (device * ends_ + static_cast<std::size_t>(run.first)) * ends_ + static_cast<std::size_t>(run.last);
  }

  std::size_t ends_;
  std::vector<double> costs_;
};

}  // namespace

Split best_split(int units, std::size_t devices, const std::vector<RunCost>& worst,
                 const std::array<RunCost, 2>& sums) {
  Split out;
  std::vector<CostTable> tables;
  for (const RunCost& cost : worst) tables.emplace_back(units, devices, cost);
  const auto allowed = [&](std::size_t device, Run run) {
    for (std::size_t i = 0; i < out.worst.size(); ++i)
      if (tables[i](device, run) > out.worst[i]) return false;
    return true;
  };
  for (const CostTable& cost : tables) {
    const auto step = [&](double value, std::size_t device, Run run) -> std::optional<double> {
      if (!allowed(device, run)) return std::nullopt;
      return std::max(value, cost(device, run));
    };
    out.worst.push_back(solve(units, devices, 0.0, step, out.runs));
  }
  const auto step = [&](const Sums& value, std::size_t device, Run run) -> std::optional<Sums> {
    if (!allowed(device, run)) return std::nullopt;
    return Sums{value[0] + sums[0](device, run), value[1] + sums[1](device, run)};
  };
  out.sums = solve(units, devices, Sums{}, step, out.runs);
  return out;
}

}  // namespace mgpu
