#include "core/pinned.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

namespace mgpu {

at::Tensor pinned_bytes(std::int64_t bytes) {
  void* memory = nullptr;
  C10_CUDA_CHECK(cudaHostAlloc(&memory, static_cast<std::size_t>(bytes), cudaHostAllocPortable));
  return at::from_blob(
      memory, {bytes}, [](void* p) { cudaFreeHost(p); }, at::TensorOptions(at::kByte));
}

}  // namespace mgpu
