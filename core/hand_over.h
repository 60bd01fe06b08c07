#pragma once

#include <ATen/core/Tensor.h>

namespace mgpu {

/// A copy of a tensor on another device, complete when it returns; what was queued on the source's current stream
/// before is awaited. Between GPUs it goes over peer access where there is, else through host memory. Between virtual
/// CPU devices, which share at::kCPU, it is a copy all the same. Undefined tensors stay undefined.
at::Tensor hand_over(const at::Tensor& tensor, at::Device to);

}  // namespace mgpu
