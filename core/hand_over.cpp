#include "core/hand_over.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>

#include "core/fault_point.h"
#include "core/pinned.h"
#include "core/quietly.h"
#include "core/stream_use.h"

namespace mgpu {
namespace {

/// One stream of each GPU for a purpose, always the same one: memory that was used there is used again there, while
/// another of the pool's streams would ask for more.
class StreamOfEach {
 public:
  explicit StreamOfEach(bool urgent) : urgent_(urgent) {}

  c10::cuda::CUDAStream operator()(at::Device gpu) {
    const std::lock_guard lock(mutex_);
    const auto known = streams_.find(gpu.index());
    if (known != streams_.end()) return known->second;
    return streams_.emplace(gpu.index(), c10::cuda::getStreamFromPool(urgent_, gpu.index())).first->second;
  }

 private:
  bool urgent_;
  std::mutex mutex_;
  std::map<c10::DeviceIndex, c10::cuda::CUDAStream> streams_;
};

c10::cuda::CUDAStream copy_stream(at::Device gpu) {
  static StreamOfEach streams(false);
  return streams(gpu);
}

c10::cuda::CUDAStream side_stream(at::Device gpu) {
  static StreamOfEach streams(true);  // what it does is short, and a pass waits for it
  return streams(gpu);
}

bool are_gpus(at::Device from, at::Device to) {
  return from.is_cuda() && to.is_cuda();
}

}  // namespace

HandOver::Path HandOver::path_between(at::Device from, at::Device to) {
  if (!are_gpus(from, to) || from == to) return Path::Peer;
  return copy_path(from, to);
}

HandOver::HandOver(at::Device from, at::Device to, Path transfer)
    : from_(from), to_(to), path_(transfer), queued_(from) {}

// Given up on its way: memory that a copy may still read is not to be used before it has.
HandOver::~HandOver() {
  quietly([this] {
    device_call();
    for (const at::Tensor& source : sources_) note_use(source, copy_stream(from_));
  });
}

at::Tensor HandOver::send(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  device_call();
  if (!are_gpus(from_, to_)) return tensor.to(to_, /*non_blocking=*/false, /*copy=*/true);
  if (from_ == to_) return tensor;
  // On the devices' working streams it would wait for what these have been given since.
  const c10::cuda::CUDAStream from_stream = copy_stream(from_), to_stream = copy_stream(to_);
  const c10::cuda::CUDAMultiStreamGuard guard({from_stream, to_stream});
  queued_.precede_current_stream(from_);
  sources_.push_back(tensor);  // before anything is queued that reads it
  at::Tensor out = path_ == Path::Peer ? tensor.to(to_, /*non_blocking=*/true)
                                       : stage_in_main_memory(tensor, to_).to(to_, /*non_blocking=*/true);
  arrived_ = QueueMark(to_);
  note_use(out, c10::cuda::getDefaultCUDAStream(to_.index()));
  return out;
}

void HandOver::wait() {
  queued_.wait();
  arrived_.wait();
  sources_.clear();
}

at::Tensor stage_in_main_memory(const at::Tensor& tensor, at::Device to) {
  const at::Device from = tensor.device();
  const at::Tensor dense = tensor.contiguous(tensor.suggest_memory_format());
  const auto size = static_cast<std::int64_t>(dense.nbytes());
  at::Tensor staging = staging_bytes(size, PinnedFrom::Cache, DeviceId::cuda(from.index()));
  if (staging.is_pinned()) survive_loss(staging);
  staging = staging.view(dense.scalar_type()).as_strided(dense.sizes(), dense.strides());
  staging.copy_(dense, /*non_blocking=*/true);
  QueueMark(from).precede_current_stream(to);
  return staging;
}

c10::Stream copy_stream_of(at::Device gpu) {
  return copy_stream(gpu).unwrap();
}

at::Tensor hand_over(const at::Tensor& tensor, at::Device to) {
  if (!tensor.defined()) return tensor;
  HandOver transfer(tensor.device(), to);
  at::Tensor out = transfer.send(tensor);
  transfer.wait();
  return out;
}

void read_here(const at::Tensor& tensor) {
  if (tensor.is_cuda()) note_use(tensor, c10::cuda::getCurrentCUDAStream(tensor.device().index()));
}

struct SideStream::Guard {
  explicit Guard(at::Device device) : guard(side_stream(device)) {}
  c10::cuda::CUDAStreamGuard guard;
};

SideStream::SideStream(at::Device device) {
  if (device.is_cuda()) guard_ = std::make_unique<Guard>(device);
}

SideStream::~SideStream() = default;

}  // namespace mgpu
