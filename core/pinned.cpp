#include "core/pinned.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/device_notes.h"
#include "core/fault_point.h"
#include "core/memory.h"
#include "core/strings.h"

namespace mgpu {
namespace {

constexpr std::int64_t kSmallestBuffer = std::int64_t{1} << 20;

/// What the system answers where it does not lock (so many) pages, with the GPU as sound as before.
bool is_refusal(int error) {
  constexpr std::array kRefusals = {cudaErrorMemoryAllocation, cudaErrorOperatingSystem, cudaErrorNotSupported,
                                    cudaErrorNotPermitted};
  return std::ranges::find(kRefusals, error) != kRefusals.end();
}

at::Tensor plain_bytes(std::int64_t bytes) {
  return at::empty({bytes}, at::TensorOptions(at::kByte));
}

at::Tensor locked_bytes(std::int64_t bytes, PinnedFrom from) {
  fault_point("lock pages");
  if (from == PinnedFrom::Cache) return at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  void* memory = nullptr;
  C10_CUDA_CHECK(cudaHostAlloc(&memory, static_cast<std::size_t>(bytes), cudaHostAllocPortable));
  return at::from_blob(
      memory, {bytes}, [](void* p) { cudaFreeHost(p); }, at::TensorOptions(at::kByte));
}

/// Undefined where the system refuses.
at::Tensor try_locked_bytes(std::int64_t bytes, PinnedFrom from) {
  try {
    return locked_bytes(bytes, from);
  } catch (const c10::AcceleratorError& error) {
    if (!is_refusal(error.get_error_code())) throw;
  }
  forget_cuda_error();
  return {};
}

void note_refusal(const DeviceId& gpu, std::string_view instead) {
  add_device_note(gpu, fmt::format("the system locks no more pages of main memory: copies go through {}, more slowly; "
                                   "\"ulimit -l\" or the container's limit may allow more",
                                   instead));
}

}  // namespace

at::Tensor staging_bytes(std::int64_t bytes, PinnedFrom from, const DeviceId& gpu) {
  at::Tensor out = try_locked_bytes(bytes, from);
  if (out.defined()) return out;
  note_refusal(gpu, "ordinary memory");
  return plain_bytes(bytes);
}

std::vector<at::Tensor> staging_ring(std::int64_t count, std::int64_t bytes, const DeviceId& gpu) {
  std::vector<at::Tensor> out;
  for (std::int64_t size = bytes; size >= std::min(bytes, kSmallestBuffer); size /= 4) {
    while (static_cast<std::int64_t>(out.size()) < count) {
      at::Tensor buffer = try_locked_bytes(size, PinnedFrom::Cache);
      if (!buffer.defined()) break;
      out.push_back(std::move(buffer));
    }
    if (static_cast<std::int64_t>(out.size()) <
        std::min<std::int64_t>(count, 2)) {  // one of several would hold up both
      out.clear();
      continue;
    }
    if (static_cast<std::int64_t>(out.size()) < count || size < bytes)
      note_refusal(gpu, fmt::format("{} buffers of {}", out.size(), bytes_text(static_cast<std::uint64_t>(size))));
    return out;
  }
  note_refusal(gpu, "ordinary memory");
  for (std::int64_t i = 0; i < std::min<std::int64_t>(count, 2); ++i) out.push_back(plain_bytes(bytes));
  return out;
}

}  // namespace mgpu
