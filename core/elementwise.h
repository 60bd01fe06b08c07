#pragma once

#include <ATen/core/Tensor.h>

namespace mgpu::elementwise {

// Activations whose bits on a CPU depend on the element alone, neither on the number of threads nor on how rows were
// dealt to calls. LibTorch deals an operation's elements out by the number of threads and computes the last few of each
// thread's share by scalar functions, which round otherwise than its vector ones. On CUDA these are LibTorch's own.

/// x * sigmoid(x).
at::Tensor silu(const at::Tensor& x);
/// The same in place of x, which is dense.
void silu_(const at::Tensor& x);

at::Tensor sigmoid(const at::Tensor& x);

/// Exact GELU.
at::Tensor gelu(const at::Tensor& x);

/// GELU by its tanh approximation.
at::Tensor gelu_tanh(const at::Tensor& x);

}  // namespace mgpu::elementwise
