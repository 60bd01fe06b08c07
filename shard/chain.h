#pragma once

#include <cstdint>
#include <vector>

#include "shard/offload.h"
#include "shard/plan.h"

namespace mgpu {

/// Units [first, last) of a chain that one device holds; none when they are equal.
struct ChainRange {
  int first = 0;
  int last = 0;

  bool empty() const { return first == last; }
};

/// A component as a row of units that is cut between devices: blocks in the order in which they run, a UNet's pairs of
/// blocks, or all of it where it stays whole. The stem counts with the first unit, the head with the last one (of a
/// UNet: with the first too).
class Chain {
 public:
  /// `need` must outlive it. `keeps_precomputed`: as Plan's.
  explicit Chain(const ComponentNeed& need, bool keeps_precomputed = true);

  int units() const { return static_cast<int>(bytes_.size()) - 1; }
  std::uint64_t bytes(ChainRange run) const { return bytes_[index(run.last)] - bytes_[index(run.first)]; }
  std::uint64_t bytes() const { return bytes_.back(); }
  /// What every step reads of all blocks: what may be lent at most.
  std::uint64_t bytes_of_steps() const { return bytes_of_steps_; }
  /// What a waiting pass, and a text, keep where those units lie.
  std::uint64_t bytes_per_pass(ChainRange run) const {
    return bytes_per_pass_[index(run.last)] - bytes_per_pass_[index(run.first)];
  }
  std::uint64_t bytes_per_prompt(ChainRange run) const {
    return bytes_per_prompt_[index(run.last)] - bytes_per_prompt_[index(run.first)];
  }
  /// What a device holds to run these: their bytes, and its copy of what each device needs.
  std::uint64_t held(ChainRange run) const {
    return bytes(run) + (run.empty() || run.first == 0 ? 0 : need_->replicated_bytes);
  }
  double time(ChainRange run) const { return times_[index(run.last)] - times_[index(run.first)]; }
  double time() const { return times_.back(); }

  /// Highest need beside the weights.
  std::uint64_t activation_on(const DeviceId& device) const;

  /// The blocks of a run in the order in which they run, with the bytes that every step reads: what may be lent,
  /// without stem and head.
  std::vector<OffloadableBlock> offloadable(ChainRange run) const;
  /// The blocks of a run: of each kind a range for those that stand together and come from the same device.
  std::vector<Assignment> assignments(ChainRange run, const OffloadedBlocks& offload = {}) const;

 private:
  static std::size_t index(int unit) { return static_cast<std::size_t>(unit); }
  /// The blocks of a kind that belong to a run.
  ChainRange blocks_of(std::size_t kind, ChainRange run) const;

  std::uint64_t bytes_of(const BlockNeed& kind, int block) const;

  const ComponentNeed* need_;
  bool keeps_precomputed_;
  std::vector<std::uint64_t> bytes_{0};                                 ///< of the units before each
  std::vector<std::uint64_t> bytes_per_pass_{0}, bytes_per_prompt_{0};  ///< likewise
  std::vector<double> times_{0.0};                                      ///< likewise
  std::uint64_t bytes_of_steps_ = 0;
};

}  // namespace mgpu
