#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/host_memory.h"
#include "core/weights.h"

namespace mgpu {

/// A linear layer that serves only what is computed before the steps: kept, or else read anew when it is needed.
struct PrecomputedLinear {
  Weights weights;
  std::string name;
  Linear kept;  ///< weight undefined where it is not kept

  Linear linear() const { return kept.weight.defined() ? kept : weights.linear(name); }
};

/// What a block is loaded from.
struct BlockWeights {
  Weights weights;  ///< for what runs in every step: on the device, or in main memory where it is streamed
  Weights device;   ///< the same on the device: for what is computed before the steps
  bool keeps_precomputed = true;

  BlockWeights at(std::string_view name) const { return {weights.at(name), device.at(name), keeps_precomputed}; }
  PrecomputedLinear precomputed(const std::string& name) const {
    return {device, name, keeps_precomputed ? device.linear(name) : Linear{}};
  }
};

/// Which of a model's blocks a device runs, in the order in which they run: all of them, or its share. What comes
/// before the first block goes with it, what comes after the last with that. Streamed ones are loaded into main memory:
/// whoever runs them brings their tensors to the device and takes them away again.
class HeldBlocks {
 public:
  static HeldBlocks all(int count) { return HeldBlocks(std::vector<bool>(static_cast<std::size_t>(count), true)); }
  /// `keeps_precomputed`: weights that serve only what is computed before the steps stay, else they are read when
  /// needed.
  explicit HeldBlocks(std::vector<bool> held, std::vector<bool> streamed = {}, bool keeps_precomputed = true)
      : held_(std::move(held)), streamed_(std::move(streamed)), keeps_precomputed_(keeps_precomputed) {
    streamed_.resize(held_.size());
  }

  int count() const { return static_cast<int>(held_.size()); }
  bool has(int block) const { return held_[static_cast<std::size_t>(block)]; }
  bool streams(int block) const { return streamed_[static_cast<std::size_t>(block)]; }
  bool stem() const { return held_.front(); }
  bool head() const { return held_.back(); }
  bool keeps_precomputed() const { return keeps_precomputed_; }

  /// The weights to load a held block from: `weights`, or the same in main memory for a streamed block.
  Weights weights_of(int block, const Weights& weights) const {
    return streams(block) ? weights.in_main_memory() : weights;
  }
  /// The same, with what a family computes before the steps.
  BlockWeights block_weights(int block, const Weights& weights) const {
    return {weights_of(block, weights), weights, keeps_precomputed_};
  }

  /// While it lives a block is loaded: what main memory a streamed one takes is booked with nobody, since it is its
  /// donor's soon.
  class Loading {
   public:
    Loading(const HeldBlocks& held, int block) {
      if (held.streams(block)) nobody_.emplace();
    }

   private:
    std::optional<HostDeviceScope> nobody_;
  };

 private:
  std::vector<bool> held_, streamed_;
  bool keeps_precomputed_;
};

}  // namespace mgpu
