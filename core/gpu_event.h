#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <utility>

namespace mgpu {

/// A CUDA event, made when it is first recorded. Its functions throw c10::Error where the GPU has failed; its
/// destructor asks for nothing and throws nothing, unlike LibTorch's, which chooses the device first.
class GpuEvent {
 public:
  explicit GpuEvent(unsigned flags = cudaEventDisableTiming) : flags_(flags) {}
  ~GpuEvent() {
    if (event_ && cudaEventDestroy(event_) != cudaSuccess) cudaGetLastError();
  }
  GpuEvent(const GpuEvent&) = delete;
  GpuEvent& operator=(const GpuEvent&) = delete;

  /// Behind what the stream has been given until now.
  void record(c10::cuda::CUDAStream stream) {
    const c10::cuda::CUDAGuard guard(stream.device_index());
    if (!event_) C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, flags_));
    C10_CUDA_CHECK(cudaEventRecord(event_, stream));
  }
  /// What the stream is given from now on waits for it. Nothing where it was not recorded, as below.
  void block(c10::cuda::CUDAStream stream) const {
    if (!event_) return;
    const c10::cuda::CUDAGuard guard(stream.device_index());
    C10_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0));
  }
  bool query() const {
    if (!event_) return true;
    const cudaError_t found = cudaEventQuery(event_);
    if (found == cudaErrorNotReady) {
      cudaGetLastError();  // no failure
      return false;
    }
    C10_CUDA_CHECK(found);
    return true;
  }
  void synchronize() const {
    if (event_) C10_CUDA_CHECK(cudaEventSynchronize(event_));
  }
  /// Both recorded, for timing, and reached.
  double seconds_until(const GpuEvent& end) const {
    float milliseconds = 0.0F;
    C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, event_, end.event_));
    return static_cast<double>(milliseconds) / 1000.0;
  }

 private:
  unsigned flags_;
  cudaEvent_t event_ = nullptr;
};

}  // namespace mgpu
