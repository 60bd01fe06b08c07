#pragma once

#include <utility>
#include <vector>

namespace mgpu {

/// Which of a model's blocks are loaded, in the order in which they run: all of them, or one device's share. What comes
/// before the first block goes with it, what comes after the last with that.
class HeldBlocks {
 public:
  static HeldBlocks all(int count) { return HeldBlocks(std::vector<bool>(static_cast<std::size_t>(count), true)); }
  explicit HeldBlocks(std::vector<bool> held) : held_(std::move(held)) {}

  bool has(int block) const { return held_[static_cast<std::size_t>(block)]; }
  bool stem() const { return held_.front(); }
  bool head() const { return held_.back(); }

 private:
  std::vector<bool> held_;
};

}  // namespace mgpu
