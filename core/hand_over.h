#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/copy_path.h"
#include "core/queue_mark.h"

namespace mgpu {

/// Tensors on their way from one device to another. Between GPUs copies are queued, on streams of their own on both
/// sides, behind what the source's current stream has been given: the caller waits for nothing. Anywhere else a copy is
/// there when send() returns.
class HandOver {
 public:
  using Path = CopyPath;
  /// copy_path() between GPUs.
  static Path path_between(at::Device from, at::Device to);

  HandOver(at::Device from, at::Device to) : HandOver(from, to, path_between(from, to)) {}
  HandOver(at::Device from, at::Device to, Path transfer);
  ~HandOver();
  HandOver(const HandOver&) = delete;
  HandOver& operator=(const HandOver&) = delete;

  /// The tensor on the other device, to be used there once wait() has returned: on the default stream, or on one that
  /// read_here() was told of. Virtual CPU devices share at::kCPU: theirs is a copy all the same. Undefined tensors stay
  /// undefined.
  at::Tensor send(const at::Tensor& tensor);

  /// Waits for what the source had been given before, the other for the copies: each throws what its device says of
  /// them. Sources are kept until then.
  void wait_for_source() const { queued_.wait(); }
  void wait();

 private:
  at::Device from_, to_;
  Path path_;
  QueueMark queued_, arrived_;
  std::vector<at::Tensor> sources_;  ///< that copies may still read
};

/// A copy of a GPU's tensor in main memory, page-locked where the system allows it, on its way to another GPU: copied
/// on the current stream of the tensor's, for which that of `to` waits. The caller says of the tensor that it is read
/// there.
at::Tensor stage_in_main_memory(const at::Tensor& tensor, at::Device to);

/// A stream of a GPU for copies from it, always the same one.
c10::Stream copy_stream_of(at::Device gpu);

/// A copy of a tensor on another device, complete when it returns.
at::Tensor hand_over(const at::Tensor& tensor, at::Device to);

/// Says that the calling thread's current stream reads a tensor: its memory is used again only behind that.
void read_here(const at::Tensor& tensor);

/// While it lives, what the calling thread queues on a GPU does not wait for the work of the device's worker, nor that
/// for it: it goes onto a stream for the small work between passes.
class SideStream {
 public:
  explicit SideStream(at::Device device);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

 private:
  struct Guard;
  std::unique_ptr<Guard> guard_;
};

}  // namespace mgpu
