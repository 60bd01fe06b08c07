#include "core/upload.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "core/cancel.h"
#include "core/error.h"
#include "core/gpu_event.h"
#include "core/pinned.h"
#include "core/quietly.h"

namespace mgpu {
namespace {

constexpr std::int64_t kSlots = 4;
constexpr std::int64_t kSlotBytes = std::int64_t{32} << 20;

}  // namespace

struct Uploader::Slot {
  explicit Slot(at::Tensor memory) : buffer(std::move(memory)) {}

  at::Tensor buffer;
  GpuEvent sent;  ///< the copy engine has read the buffer
};

Uploader::Uploader(at::Device device) : device_(device) {
  MGPU_CHECK(device.is_cuda(), "upload to {}", device.str());
}

// The buffers go back to LibTorch's host allocator, which knows nothing of the copies that still read them.
Uploader::~Uploader() {
  for (const auto& slot : slots_)  // a device that failed reads nothing any more
    quietly([&] { slot->sent.synchronize(); });
}

at::Tensor Uploader::upload(std::span<const std::byte> bytes, at::IntArrayRef shape, at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(device_);
  if (slots_.empty())
    for (at::Tensor& buffer : staging_ring(kSlots, kSlotBytes, DeviceId::cuda(device_.index())))
      slots_.push_back(std::make_unique<Slot>(std::move(buffer)));
  const auto piece = static_cast<std::size_t>(slots_.front()->buffer.numel());
  at::Tensor out = at::empty(shape, at::TensorOptions(dtype).device(device_));
  MGPU_CHECK_EQ(static_cast<std::size_t>(out.nbytes()), bytes.size());
  auto* target = static_cast<std::byte*>(out.mutable_data_ptr());
  for (std::size_t done = 0; done < bytes.size(); done += piece) {
    stop_if_requested();
    fill_and_send(bytes.subspan(done, std::min(piece, bytes.size() - done)), target + done);
  }
  return out;
}

void Uploader::fill_and_send(std::span<const std::byte> piece, std::byte* target) {
  Slot& slot = *slots_[next_++ % slots_.size()];
  slot.sent.synchronize();
  auto* buffer = static_cast<std::byte*>(slot.buffer.mutable_data_ptr());
  threads_.copy(buffer, piece);
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device_.index());
  C10_CUDA_CHECK(cudaMemcpyAsync(target, buffer, piece.size(), cudaMemcpyHostToDevice, stream));
  slot.sent.record(stream);
}

}  // namespace mgpu
