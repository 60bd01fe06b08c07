#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/devices.h"

namespace mgpu {

/// Slots of the ring that streamed blocks come through: one is computed with while the next is filled.
inline constexpr int kRingSlots = 2;

/// Which blocks of a device's run another device keeps for it: they are streamed through a ring when their turn comes.
struct OffloadedBlocks {
  std::vector<std::optional<DeviceId>> donor =
      {};                   ///< of each block in the order in which they run; empty: none has one
  std::uint64_t bytes = 0;  ///< of the lent blocks
  std::uint64_t ring = 0;   ///< of the ring on the device that runs them

  /// What the device has more room for.
  std::uint64_t freed() const { return bytes > ring ? bytes - ring : 0; }
  std::optional<DeviceId> donor_of(std::size_t block) const { return donor.empty() ? std::nullopt : donor[block]; }
};

/// Bytes that a donor should keep.
struct DonorShare {
  DeviceId donor;
  double bytes = 0.0;
};

/// A block that may be lent.
struct OffloadableBlock {
  std::uint64_t bytes = 0;
  double time = 1.0;  ///< that computing it takes, relative
};

/// Lends blocks to donors, about so many bytes to each, spread evenly over the time that the row takes: the link is
/// asked for as much while any of them is computed, and never waits. Of blocks that take as long, light ones are lent
/// more often.
OffloadedBlocks spread_offload(std::span<const OffloadableBlock> blocks, std::span<const DonorShare> shares);

/// The loans from one donor that a row of blocks may make, from few blocks to all of them.
class OffloadChoices {
 public:
  OffloadChoices(std::vector<OffloadableBlock> blocks, const DeviceId& donor);

  /// What a loan lends and what its ring takes.
  struct Size {
    std::uint64_t bytes = 0, ring = 0;
    std::uint64_t wanted = 0;  ///< bytes that it was made for; 0: the loan that frees most

    std::uint64_t freed() const { return bytes > ring ? bytes - ring : 0; }
  };
  /// The loan of the fewest bytes that frees so many, or the one that frees most where none frees enough: less to free
  /// never lends more.
  Size that_frees(std::uint64_t bytes) const;
  OffloadedBlocks offload(const Size& size) const;

 private:
  std::vector<OffloadableBlock> blocks_;
  DeviceId donor_;
  OffloadedBlocks most_;
  std::vector<Size> sizes_;  ///< each frees and lends more than the one before
};

/// The loan that OffloadChoices::that_frees() names.
OffloadedBlocks offload_that_frees(std::span<const OffloadableBlock> blocks, const DeviceId& donor,
                                   std::uint64_t bytes);

}  // namespace mgpu
