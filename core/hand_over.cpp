#include "core/hand_over.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>

namespace mgpu {
namespace {

/// A stream of each GPU for copies alone, always the same one: memory that has been copied to is reused by the next
/// copy there, while another of the pool's streams would ask for more.
c10::cuda::CUDAStream copy_stream(c10::DeviceIndex gpu) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::cuda::CUDAStream> streams;
  const std::lock_guard lock(mutex);
  return streams.try_emplace(gpu, c10::cuda::getStreamFromPool(/*isHighPriority=*/true, gpu)).first->second;
}

/// On streams of its own on both sides: on the devices' working streams it would wait for what these have queued since.
at::Tensor copy_between_gpus(const at::Tensor& tensor, at::Device to) {
  // The tensor must be there; what else the device has queued, weights on their way to it among it, may go on.
  c10::cuda::getCurrentCUDAStream(tensor.device().index()).synchronize();
  const c10::cuda::CUDAStream from_stream = copy_stream(tensor.device().index()), to_stream = copy_stream(to.index());
  at::Tensor out;
  {
    const c10::cuda::CUDAMultiStreamGuard guard({from_stream, to_stream});
    out = tensor.to(to, /*non_blocking=*/true);
    from_stream.synchronize();
    to_stream.synchronize();
  }
  out.record_stream(c10::cuda::getDefaultCUDAStream(to.index()));  // which is where it will be used
  return out;
}

}  // namespace

at::Tensor hand_over(const at::Tensor& tensor, at::Device to) {
  if (!tensor.defined()) return tensor;
  if (tensor.is_cuda() && to.is_cuda()) return copy_between_gpus(tensor, to);
  return tensor.to(to, /*non_blocking=*/false, /*copy=*/true);
}

}  // namespace mgpu
