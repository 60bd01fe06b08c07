#pragma once

#include <cstdint>
#include <vector>

#include "shard/loan.h"
#include "shard/plan.h"

namespace mgpu {

/// Units [first, last) of a chain that one device holds; none when they are equal.
struct UnitRange {
  int first = 0;
  int last = 0;

  bool empty() const { return first == last; }
};

/// A component as a row of units that is cut between devices: blocks in the order in which they run, a UNet's pairs of
/// blocks, or all of it where it stays whole. The stem counts with the first unit, the head with the last one (of a
/// UNet: with the first too).
class Chain {
 public:
  /// `need` must outlive it. `keeps_ahead`: as Plan's.
  explicit Chain(const ComponentNeed& need, bool keeps_ahead = true);

  int units() const { return static_cast<int>(bytes_.size()) - 1; }
  std::uint64_t bytes(UnitRange run) const { return bytes_[index(run.last)] - bytes_[index(run.first)]; }
  std::uint64_t bytes() const { return bytes_.back(); }
  /// What every step reads of all blocks: what may be lent at most.
  std::uint64_t bytes_of_steps() const { return bytes_of_steps_; }
  /// What a waiting pass, and a text, keep where those units lie.
  std::uint64_t of_pass(UnitRange run) const { return of_pass_[index(run.last)] - of_pass_[index(run.first)]; }
  std::uint64_t of_text(UnitRange run) const { return of_text_[index(run.last)] - of_text_[index(run.first)]; }
  /// What a device holds to run these: their bytes, and its copy of what each device needs.
  std::uint64_t held(UnitRange run) const { return bytes(run) + (run.empty() || run.first == 0 ? 0 : need_->each); }
  double time(UnitRange run) const { return times_[index(run.last)] - times_[index(run.first)]; }
  double time() const { return times_.back(); }

  /// Highest need beside the weights.
  std::uint64_t activation_on(const DeviceId& device) const;

  /// The blocks of a run in the order in which they run, with the bytes that every step reads: what may be lent,
  /// without stem and head.
  std::vector<LendableBlock> lendable(UnitRange run) const;
  /// The blocks of a run: of each kind a range for those that stand together and come from the same device.
  std::vector<Assignment> assignments(UnitRange run, const Loan& loan = {}) const;

 private:
  static std::size_t index(int unit) { return static_cast<std::size_t>(unit); }
  /// The blocks of a kind that belong to a run.
  UnitRange blocks_of(std::size_t kind, UnitRange run) const;

  std::uint64_t bytes_of(const BlockNeed& kind, int block) const;

  const ComponentNeed* need_;
  bool keeps_ahead_;
  std::vector<std::uint64_t> bytes_{0};                 ///< of the units before each
  std::vector<std::uint64_t> of_pass_{0}, of_text_{0};  ///< likewise
  std::vector<double> times_{0.0};                      ///< likewise
  std::uint64_t bytes_of_steps_ = 0;
};

}  // namespace mgpu
