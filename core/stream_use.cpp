#include "core/stream_use.h"

#include <c10/cuda/CUDACachingAllocator.h>

#include <atomic>
#include <mutex>

#include "core/quietly.h"

namespace mgpu {
namespace {

void free_on_gpu(void* memory) {
  quietly([memory] { c10::cuda::CUDACachingAllocator::raw_delete(memory); });
}

/// LibTorch's deleter of pinned memory, once one has been seen: it has only one.
std::atomic<c10::DeleterFnPtr> free_pinned{nullptr};

void free_pinned_quietly(void* context) {
  quietly([context] { free_pinned.load()(context); });
}

}  // namespace

void note_use(const at::Tensor& tensor, c10::cuda::CUDAStream stream) {
  // LibTorch records streams only where it finds its own deleter. Several threads may use one tensor.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const c10::DeleterFnPtr own = c10::cuda::CUDACachingAllocator::get()->raw_deleter();
  c10::DataPtr& memory = tensor.storage().unsafeGetStorageImpl()->_mutable_data_ptr_no_checks();
  static_cast<void>(memory.compare_exchange_deleter(&free_on_gpu, own));
  try {
    c10::cuda::CUDACachingAllocator::recordStream(memory, stream);
  } catch (...) {
    static_cast<void>(memory.compare_exchange_deleter(own, &free_on_gpu));
    throw;
  }
  static_cast<void>(memory.compare_exchange_deleter(own, &free_on_gpu));
}

void survive_loss(const at::Tensor& pinned) {
  c10::DataPtr& memory = pinned.storage().unsafeGetStorageImpl()->_mutable_data_ptr_no_checks();
  const c10::DeleterFnPtr own = memory.get_deleter();
  if (own == &free_pinned_quietly) return;
  free_pinned = own;
  static_cast<void>(memory.compare_exchange_deleter(own, &free_pinned_quietly));
}

}  // namespace mgpu
