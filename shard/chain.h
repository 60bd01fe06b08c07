#pragma once

#include <cstdint>
#include <vector>

#include "shard/plan.h"

namespace mgpu {

/// Units [first, last) of a chain that one device holds; none when they are equal.
struct Run {
  int first = 0;
  int last = 0;

  bool empty() const { return first == last; }
};

/// A component as a row of units that is cut between devices: blocks in the order in which they run, a UNet's pairs of
/// blocks, or all of it where it stays whole. The stem counts with the first unit, the head with the last one (of a
/// UNet: with the first too).
class Chain {
 public:
  /// `need` must outlive it.
  explicit Chain(const ComponentNeed& need);

  int units() const { return static_cast<int>(bytes_.size()) - 1; }
  std::uint64_t bytes(Run run) const { return bytes_[index(run.last)] - bytes_[index(run.first)]; }
  std::uint64_t bytes() const { return bytes_.back(); }
  /// What a device holds to run these: their bytes, and its copy of what each device needs.
  std::uint64_t held(Run run) const { return bytes(run) + (run.empty() || run.first == 0 ? 0 : need_->each); }
  double time(Run run) const { return times_[index(run.last)] - times_[index(run.first)]; }
  double time() const { return times_.back(); }

  /// The blocks of a run, a range for each kind.
  std::vector<Assignment> assignments(Run run) const;

 private:
  static std::size_t index(int unit) { return static_cast<std::size_t>(unit); }
  /// The blocks of a kind that belong to a run.
  Run blocks_of(std::size_t kind, Run run) const;

  const ComponentNeed* need_;
  std::vector<std::uint64_t> bytes_{0};  ///< of the units before each
  std::vector<double> times_{0.0};       ///< likewise
};

}  // namespace mgpu
