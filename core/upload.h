#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "core/copy_threads.h"

namespace mgpu {

/// Brings bytes of a mapped file to a CUDA device at the link's speed: several threads fill a small ring of pinned
/// buffers while the copy engine empties it. The whole file is never held in anonymous memory.
class Uploader {
 public:
  explicit Uploader(at::Device device);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  /// A tensor of `shape` and `dtype` on the device holding `bytes`, ordered on the current stream. The bytes have been
  /// read when this returns. Throws c10::OutOfMemoryError when the device has no room.
  at::Tensor upload(std::span<const std::byte> bytes, at::IntArrayRef shape, at::ScalarType dtype);

 private:
  struct Slot;
  void fill_and_send(std::span<const std::byte> piece, std::byte* target);

  at::Device device_;
  std::vector<std::unique_ptr<Slot>> slots_;  ///< as many, and as large, as the system locks: see staging_ring()
  CopyThreads threads_;
  std::size_t next_ = 0;
};

}  // namespace mgpu
