#include "core/upload.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "core/cancel.h"
#include "core/error.h"
#include "core/gpu_event.h"

namespace mgpu {
namespace {

constexpr std::size_t kSlots = 4;
constexpr std::size_t kSlotBytes = std::size_t{32} << 20;

}  // namespace

struct Uploader::Slot {
  at::Tensor pinned;
  GpuEvent sent;  ///< the copy engine has read the buffer
};

Uploader::Uploader(at::Device device) : device_(device), slots_(std::make_unique<Slot[]>(kSlots)) {
  MGPU_CHECK(device.is_cuda(), "upload to {}", device.str());
}

// The pinned buffers go back to LibTorch's host allocator, which waits for the copies that still read them.
Uploader::~Uploader() = default;

at::Tensor Uploader::upload(std::span<const std::byte> bytes, at::IntArrayRef shape, at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(device_);
  at::Tensor out = at::empty(shape, at::TensorOptions(dtype).device(device_));
  MGPU_CHECK_EQ(static_cast<std::size_t>(out.nbytes()), bytes.size());
  auto* target = static_cast<std::byte*>(out.mutable_data_ptr());
  for (std::size_t done = 0; done < bytes.size(); done += kSlotBytes) {
    stop_if_requested();
    fill_and_send(bytes.subspan(done, std::min(kSlotBytes, bytes.size() - done)), target + done);
  }
  return out;
}

void Uploader::fill_and_send(std::span<const std::byte> piece, std::byte* target) {
  Slot& slot = slots_[next_++ % kSlots];
  if (!slot.pinned.defined()) {
    slot.pinned = at::empty({static_cast<std::int64_t>(kSlotBytes)}, at::TensorOptions(at::kByte).pinned_memory(true));
  }
  slot.sent.synchronize();
  auto* buffer = static_cast<std::byte*>(slot.pinned.mutable_data_ptr());
  threads_.copy(buffer, piece);
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device_.index());
  C10_CUDA_CHECK(cudaMemcpyAsync(target, buffer, piece.size(), cudaMemcpyHostToDevice, stream));
  slot.sent.record(stream);
}

}  // namespace mgpu
