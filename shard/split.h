#pragma once

#include <array>
#include <cstddef>
#include <limits>
#include <vector>

#include "shard/chain.h"

namespace mgpu {

/// What a run on a device comes to.
struct RunCosts {
  double lacks = 0.0;      ///< bytes of memory
  double offloaded = 0.0;  ///< bytes
  double time = 0.0;
  std::array<double, 4> ties = {};  ///< by whose sums, the first first, cuts are told apart that cost the same
};

/// Costs of every run on every device, worked out once. With two variants of each device's costs, exactly one device
/// takes the second: it has the autoencoder too.
class CostTable {
 public:
  CostTable(int units, std::size_t devices, std::size_t variants)
      : units_(units),
        devices_(devices),
        variants_(variants),
        ends_(static_cast<std::size_t>(units) + 1),
        costs_(devices * variants * ends_ * ends_) {}

  int units() const { return units_; }
  std::size_t devices() const { return devices_; }
  std::size_t variants() const { return variants_; }
  RunCosts& at(std::size_t device, std::size_t variant, ChainRange run) { return costs_[index(device, variant, run)]; }
  const RunCosts& at(std::size_t device, std::size_t variant, ChainRange run) const {
    return costs_[index(device, variant, run)];
  }

 private:
  std::size_t index(std::size_t device, std::size_t variant, ChainRange run) const {
    return ((device * variants_ + variant) * ends_ + static_cast<std::size_t>(run.first)) * ends_ +
           static_cast<std::size_t>(run.last);
  }

  int units_;
  std::size_t devices_, variants_, ends_;
  std::vector<RunCosts> costs_;
};

/// A chain cut into one run per device, in the devices' order; runs may be empty.
struct Split {
  std::vector<ChainRange> runs;
  std::size_t second = 0;  ///< the device that takes the second variant
};

/// How many devices may have a run, how many bytes may be lent in all, and what a cut of few passes costs.
struct SplitLimits {
  std::size_t most_devices = 0;
  double most_offloaded = std::numeric_limits<double>::infinity();  ///< where a cut can keep to it
  double passes = 1.0;                                              ///< at once
  double hand_over = 0.0;                                           ///< time of each device that has a run
};

// Each is the best cut by the largest lack of any device; among such by what its name says; among those by the sums of
// the ties. Dynamic programming over devices and ends of runs: exact, and the same for the same costs.

/// By the largest of each of two costs in turn.
enum class SplitBy : std::uint8_t { TimeThenOffloaded, OffloadedThenTime };
Split even_split(const CostTable& table, SplitBy by, const SplitLimits& limits);
/// By the larger of the largest time, and of the sum of all times over the passes at once.
Split quick_split(const CostTable& table, const SplitLimits& limits);
/// By the sum of the bytes lent.
Split thrifty_split(const CostTable& table, const SplitLimits& limits);

}  // namespace mgpu
