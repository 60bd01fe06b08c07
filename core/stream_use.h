#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>

namespace mgpu {

/// Says that a stream uses a GPU's tensor that was allocated for another: its memory is used again only behind what the
/// stream has been given when the tensor goes. As LibTorch's record_stream(), after which a tensor that goes once the
/// GPU is lost would end the program: its destructor asks the GPU, and throws. After this one its memory is given up.
void note_use(const at::Tensor& tensor, c10::cuda::CUDAStream stream);

/// Likewise of a tensor in LibTorch's pinned memory that copies are queued for.
void survive_loss(const at::Tensor& pinned);

}  // namespace mgpu
