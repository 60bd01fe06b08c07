#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/devices.h"
#include "core/queue_mark.h"
#include "shard/meter.h"

namespace mgpu {

/// How long a GPU waits for copies of streamed blocks while it goes through some work.
class CopyWaits {
 public:
  /// Begins with what the device's current stream is given from now on.
  explicit CopyWaits(at::Device device) : device_(device), begin_(mark()) {}

  /// Around each wait, and behind all work.
  void wait_begins() { waits_.emplace_back().first = mark(); }
  void wait_ends() { waits_.back().second = mark(); }
  void end() { end_ = mark(); }
  /// Of the work's time, 0..1; 0 where its end was not reached. Everything must be done.
  double share() const;

 private:
  QueueMark mark() const { return QueueMark(device_, QueueMark::For::Timing); }

  at::Device device_;
  QueueMark begin_, end_;
  std::vector<std::pair<QueueMark, QueueMark>> waits_;
};

/// Blocks of a model that donors keep, brought to the device that runs them through a ring of equal slots: while one is
/// computed with, the next is copied. The ring follows the blocks over and over, from step to step. For the device's
/// worker alone.
class BlockStream {
 public:
  struct Block {
    int index = 0;                     ///< in the model
    std::vector<at::Tensor*> tensors;  ///< what the model reads it through, loaded into main memory
    DeviceId donor = DeviceId::cpu();
  };

  /// Moves the blocks, given in the order in which they run, to their donors: packed, and in main memory pinned where
  /// the device is a GPU; then fills the ring with the first ones. The tensors' owner must outlive this, as must the
  /// device's meter, which hears of every copy.
  BlockStream(at::Device device, std::vector<Block> blocks, Meter* meter = nullptr);
  /// Waits for copies under way.
  ~BlockStream();
  BlockStream(const BlockStream&) = delete;
  BlockStream& operator=(const BlockStream&) = delete;

  /// While it lives a block's tensors are on the device, for what is queued on the current stream; the next block's are
  /// on their way. Nothing happens for a block that is not streamed. A GPU's wait for it is noted where there are
  /// `waits`.
  class Use {
   public:
    Use(BlockStream* stream, int block, CopyWaits* waits = nullptr);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    BlockStream* stream_;
    int position_ = -1;
  };

  /// Of its blocks.
  int count() const;
  /// Bytes that a donor keeps.
  std::uint64_t offloaded_bytes(const DeviceId& donor) const;
  /// Bytes copied so far.
  std::uint64_t copied_bytes() const { return copied_; }

 private:
  struct Packed;
  struct Slot;

  Packed pack(Block block) const;
  /// Index in blocks_, or -1.
  int position_of(int block) const;
  void fetch(int position, CopyWaits* waits);
  void release(int position);
  /// Points the model's tensors at a slot, behind the copy there; and at nothing.
  void show(int position, Slot& slot, CopyWaits* waits) const;
  void hide(int position) const;
  /// The slot with that block, into which it is copied if it was in none.
  Slot& bring(int position);
  void copy(const Packed& block, Slot& slot);

  at::Device device_;
  Meter* meter_;
  std::vector<Packed> blocks_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::optional<c10::Stream> copies_;  ///< of a GPU: where copies are queued
  std::uint64_t uses_ = 0, copied_ = 0;
  std::exception_ptr fault_;  ///< of a release, for who brings a block next
};

}  // namespace mgpu
