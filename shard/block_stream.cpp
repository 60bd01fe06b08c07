#include "shard/block_stream.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "core/cancel.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/gpu_event.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "core/pinned.h"
#include "core/quietly.h"
#include "shard/offload.h"

namespace mgpu {
namespace {

constexpr std::int64_t kAlignment = 512;  // what LibTorch's allocator gives: kernels choose by it

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// The memory of `bytes` from `offset` on as a tensor like `like`, which must be dense.
at::Tensor place(const at::Tensor& bytes, std::int64_t offset, const at::Tensor& like) {
  return bytes.narrow(0, offset, static_cast<std::int64_t>(like.nbytes()))
      .view(like.scalar_type())
      .as_strided(like.sizes(), like.strides(), offset / static_cast<std::int64_t>(like.element_size()));
}

}  // namespace

double CopyWaits::share() const {
  if (!end_.is_set()) return 0.0;  // the work failed
  double waited = 0.0;
  for (const auto& [begin, end] : waits_) waited += QueueMark::seconds_between(begin, end);
  return waited / QueueMark::seconds_between(begin_, end_);
}

struct BlockStream::Packed {
  Block block;
  at::Tensor bytes;                   ///< [n] uint8 on the donor
  std::vector<at::Tensor> shapes;     ///< of the tensors: on the meta device, without memory
  std::vector<std::int64_t> offsets;  ///< of the tensors in `bytes`
};

struct BlockStream::Slot {
  at::Tensor bytes;  ///< [n] uint8 on the device that computes
  int position = -1;
  std::uint64_t used = 0;  ///< when last, in uses
  GpuEvent copied;         ///< the block has arrived
  GpuEvent computed;       ///< what was queued with it has run
  bool in_use = false;
};

BlockStream::Packed BlockStream::pack(Block block) const {
  stop_if_requested();
  const HostDeviceScope scope(block.donor);  // what it keeps is its own
  Packed out;
  std::int64_t size = 0;
  for (const at::Tensor* tensor : block.tensors) {
    MGPU_CHECK(tensor->is_non_overlapping_and_dense(), "a streamed tensor has gaps");
    out.offsets.push_back(size);
    out.shapes.push_back(at::empty_strided(tensor->sizes(), tensor->strides(), tensor->options().device(at::kMeta)));
    size += aligned(static_cast<std::int64_t>(tensor->nbytes()));
  }
  at::Tensor bytes = device_.is_cuda() && !block.donor.is_cuda()
                         ? staging_bytes(size, PinnedFrom::Driver, DeviceId::cuda(device_.index()))
                         : at::empty({size}, at::kByte);
  for (std::size_t i = 0; i < block.tensors.size(); ++i) {
    place(bytes, out.offsets[i], out.shapes[i]).copy_(*block.tensors[i]);
    *block.tensors[i] = at::Tensor();
  }
  if (block.donor.is_cuda()) bytes = bytes.to(torch_device(block.donor));
  out.bytes = std::move(bytes);
  out.block = std::move(block);
  return out;
}

BlockStream::BlockStream(at::Device device, std::vector<Block> blocks, Meter* meter) : device_(device), meter_(meter) {
  if (device.is_cuda()) copies_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index()).unwrap();
  std::int64_t largest = 0;
  for (Block& block : blocks) {
    blocks_.push_back(pack(std::move(block)));
    largest = std::max(largest, blocks_.back().bytes.numel());
  }
  for (int i = 0; i < kRingSlots; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->bytes = at::empty({largest}, at::TensorOptions(at::kByte).device(device));
    // Whoever had the memory before may still be at work with it.
    if (device.is_cuda()) slots_.back()->computed.record(c10::cuda::getCurrentCUDAStream(device.index()));
  }
  try {
    for (int i = 0; i < std::min(count(), kRingSlots); ++i) bring(i);
  } catch (...) {  // copies may be under way
    quietly([this] { synchronize(device_); });
    throw;
  }
}

BlockStream::~BlockStream() {
  quietly([this] { synchronize(device_); });
}

BlockStream::Use::Use(BlockStream* stream, int block, CopyWaits* waits)
    : stream_(stream), position_(stream ? stream->position_of(block) : -1) {
  if (position_ >= 0) stream_->fetch(position_, waits);
}

BlockStream::Use::~Use() {
  if (position_ < 0) return;
  try {
    stream_->release(position_);
  } catch (...) {  // nobody may fill the slot again, since nobody knows when it is free
    stream_->fault_ = std::current_exception();
  }
}

int BlockStream::count() const {
  return static_cast<int>(blocks_.size());
}

std::uint64_t BlockStream::offloaded_bytes(const DeviceId& donor) const {
  std::uint64_t out = 0;
  for (const Packed& packed : blocks_)
    if (packed.block.donor == donor) out += packed.bytes.nbytes();
  return out;
}

int BlockStream::position_of(int block) const {
  const auto found = std::ranges::find(blocks_, block, [](const Packed& packed) { return packed.block.index; });
  return found == blocks_.end() ? -1 : static_cast<int>(found - blocks_.begin());
}

void BlockStream::fetch(int position, CopyWaits* waits) {
  Slot& slot = bring(position);
  slot.in_use = true;
  slot.used = ++uses_;
  try {
    show(position, slot, waits);
    bring((position + 1) % static_cast<int>(blocks_.size()));
  } catch (...) {  // there will be no release
    slot.in_use = false;
    hide(position);
    throw;
  }
}

void BlockStream::show(int position, Slot& slot, CopyWaits* waits) const {
  device_call();
  if (waits) waits->wait_begins();
  if (device_.is_cuda()) slot.copied.block(c10::cuda::getCurrentCUDAStream(device_.index()));
  if (waits) waits->wait_ends();
  const Packed& packed = blocks_[static_cast<std::size_t>(position)];
  for (std::size_t i = 0; i < packed.shapes.size(); ++i)
    *packed.block.tensors[i] = place(slot.bytes, packed.offsets[i], packed.shapes[i]);
}

void BlockStream::hide(int position) const {
  for (at::Tensor* tensor : blocks_[static_cast<std::size_t>(position)].block.tensors) *tensor = at::Tensor();
}

void BlockStream::release(int position) {
  const auto slot = std::ranges::find_if(slots_, [&](const auto& s) { return s->position == position; });
  MGPU_CHECK(slot != slots_.end(), "streamed block {} left its slot", position);
  hide(position);
  (*slot)->in_use = false;
  device_call();
  if (device_.is_cuda()) (*slot)->computed.record(c10::cuda::getCurrentCUDAStream(device_.index()));
}

BlockStream::Slot& BlockStream::bring(int position) {
  for (const auto& slot : slots_)
    if (slot->position == position) return *slot;
  if (fault_) std::rethrow_exception(fault_);
  Slot* oldest = nullptr;
  for (const auto& slot : slots_)
    if (!slot->in_use && (!oldest || slot->used < oldest->used)) oldest = slot.get();
  MGPU_CHECK(oldest, "every slot of the ring is in use");
  oldest->position = -1;  // should the copy fail
  copy(blocks_[static_cast<std::size_t>(position)], *oldest);
  oldest->position = position;
  oldest->used = ++uses_;
  return *oldest;
}

void BlockStream::copy(const Packed& block, Slot& slot) {
  const at::Tensor target = slot.bytes.narrow(0, 0, block.bytes.numel());
  fault_point("copy");
  copied_ += block.bytes.nbytes();
  if (meter_) meter_->received(block.block.donor, block.bytes.nbytes());
  if (!device_.is_cuda()) {
    target.copy_(block.bytes);
    return;
  }
  const c10::cuda::CUDAStream stream(*copies_);
  slot.computed.block(stream);
  std::vector<c10::cuda::CUDAStream> streams{stream};
  if (block.bytes.is_cuda()) streams.push_back(c10::cuda::getStreamFromPool(false, block.bytes.device().index()));
  const c10::cuda::CUDAMultiStreamGuard guard(streams);
  const bool by_peer = !block.bytes.is_cuda() || copy_path(block.bytes.device(), device_) == CopyPath::Peer;
  target.copy_(by_peer ? block.bytes : stage_in_main_memory(block.bytes, device_), /*non_blocking=*/true);
  slot.copied.record(stream);
}

}  // namespace mgpu
