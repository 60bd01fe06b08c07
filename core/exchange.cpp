#include "core/exchange.h"

#include <ATen/ATen.h>
#include <ATen/cuda/PeerToPeerAccess.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "core/error.h"
#include "core/fault_point.h"
#include "core/gpu_event.h"
#include "core/hand_over.h"
#include "core/stream_use.h"

namespace mgpu {

struct Exchange::Round::Shown {
  std::vector<at::Tensor> tensors;
  GpuEvent ready;  ///< of tensors on a GPU
};

namespace {

/// Through main memory, on a stream of the source's device and then on the current one of the target's.
at::Tensor copy_staged(const at::Tensor& from, GpuEvent& ready, at::Device to) {
  const c10::cuda::CUDAStream source(copy_stream_of(from.device()));
  const c10::cuda::CUDAMultiStreamGuard guard({source, c10::cuda::getCurrentCUDAStream(to.index())});
  ready.block(source);
  at::Tensor out = stage_in_main_memory(from, to).to(to, /*non_blocking=*/true);
  note_use(from, source);
  return out;
}

/// On the current stream of the target's device, behind what the event stands for.
at::Tensor copy_to_gpu(const at::Tensor& from, GpuEvent& ready, at::Device to) {
  if (copy_path(from.device(), to) == CopyPath::MainMemory) return copy_staged(from, ready, to);
  const c10::cuda::CUDAGuard guard(to);
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  ready.block(stream);
  at::Tensor out = at::empty(from.sizes(), from.options().device(to));
  const bool direct = at::cuda::get_p2p_access(to.index(), from.device().index());  // who copies needs the access
  C10_CUDA_CHECK(c10::cuda::CUDACachingAllocator::memcpyAsync(out.mutable_data_ptr(), to.index(), from.const_data_ptr(),
                                                              from.device().index(), from.nbytes(), stream, direct));
  note_use(from, stream);
  return out;
}

}  // namespace

Exchange::Exchange(std::size_t ranks, JointWork& work) : ranks_(ranks), work_(work), calls_(ranks) {
  for (auto& round : rounds_)
    for (std::size_t i = 0; i < ranks; ++i) round.push_back(std::make_unique<Round::Shown>());
}

Exchange::~Exchange() = default;

at::Tensor Exchange::Round::take(std::size_t rank, std::size_t index, const at::Tensor& own) const {
  Shown& shown = *(*shown_)[rank];
  const at::Tensor& tensor = shown.tensors[index];
  if (rank == self_ || !tensor.defined()) return tensor;
  if (tensor.is_cuda() && own.is_cuda()) return copy_to_gpu(tensor, shown.ready, own.device());
  return tensor.to(own.device(), /*non_blocking=*/false, /*copy=*/true);
}

Exchange::Round Exchange::show(std::size_t rank, std::vector<at::Tensor> tensors) {
  fault_point("exchange");
  std::unique_lock lock(work_.mutex_);
  if (work_.cause_) throw JointWork::Broken();
  const std::size_t call = calls_[rank]++;
  Round::Shown& shown = *rounds_[call % 2][rank];
  shown.tensors = std::move(tensors);
  for (at::Tensor& tensor : shown.tensors) {
    if (!tensor.defined()) continue;
    MGPU_CHECK(tensor.is_contiguous(), "rank {} shows a tensor that lies apart", rank);
    if (tensor.is_cuda()) shown.ready.record(c10::cuda::getCurrentCUDAStream(tensor.device().index()));
  }
  ++came_;
  work_.changed_.notify_all();
  // A rank can be at most one call ahead of the others.
  work_.changed_.wait(lock, [&] { return work_.cause_ || came_ >= (call + 1) * ranks_; });
  if (came_ < (call + 1) * ranks_) throw JointWork::Broken();
  Round out;
  out.shown_ = &rounds_[call % 2];
  out.self_ = rank;
  return out;
}

}  // namespace mgpu
