#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "core/weights.h"

namespace mgpu {

/// Which of a model's blocks a device runs, in the order in which they run: all of them, or its share. What comes
/// before the first block goes with it, what comes after the last with that. Streamed ones are loaded into main memory:
/// whoever runs them brings their tensors to the device and takes them away again.
class HeldBlocks {
 public:
  static HeldBlocks all(int count) { return HeldBlocks(std::vector<bool>(static_cast<std::size_t>(count), true)); }
  explicit HeldBlocks(std::vector<bool> held, std::vector<bool> streamed = {})
      : held_(std::move(held)), streamed_(std::move(streamed)) {
    streamed_.resize(held_.size());
  }

  int count() const { return static_cast<int>(held_.size()); }
  bool has(int block) const { return held_[static_cast<std::size_t>(block)]; }
  bool streams(int block) const { return streamed_[static_cast<std::size_t>(block)]; }
  bool stem() const { return held_.front(); }
  bool head() const { return held_.back(); }

  /// The weights to load a held block from: `weights`, or the same on the CPU for a streamed block.
  Weights weights_of(int block, const Weights& weights) const {
    return streams(block) ? weights.on(at::kCPU) : weights;
  }

 private:
  std::vector<bool> held_, streamed_;
};

}  // namespace mgpu
