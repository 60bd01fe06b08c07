#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mgpu::kernels {

// Our CUDA kernels behind tensors: shapes are checked here, memory is allocated here, the work is queued on the current
// stream. fp32, fp16 and bf16; statistics and products in fp32, one rounding at the end; no atomics, so a rerun gives
// the same bits. The contracts are those of core/nn.h and core/image_nn.h, which call these for CUDA tensors.

/// x [1, N, C], shift and scale [1, 1, C]; C a multiple of 8, at most 16384.
at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale);

/// x and y [1, N, C], gate [1, 1, C]; C a multiple of 8.
at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);

/// qkv [1, N, 3 * H * 128] (rows may lie apart); q, k, v [1, M, H, 128] contiguous, rows first..first+N-1 are written.
void split_norm_rotate(const at::Tensor& qkv, const at::Tensor& q_norm, const at::Tensor& k_norm, const at::Tensor& cos,
                       const at::Tensor& sin, std::int64_t first, const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v);

/// a [1, N, A] beside gelu_tanh(b [1, N, B]) (rows may lie apart) -> [1, N, A + B]; A and B multiples of 8.
at::Tensor concat_gelu(const at::Tensor& a, const at::Tensor& b);

/// Pixels of a row whose sums finish_rows takes together.
std::int64_t segment_width(std::int64_t channels);

/// As mgpu::finish_rows and finish_upsampled_rows; C a multiple of 32, at most 2048; sums may be undefined.
void finish_rows(const at::Tensor& product, const at::Tensor& bias, const at::Tensor& residual, const at::Tensor& out,
                 const at::Tensor& sums, bool upsampled);

/// As mgpu::group_affine.
at::Tensor group_affine(const at::Tensor& sums, double positions, const at::Tensor& weight, const at::Tensor& bias,
                        double eps);

/// As mgpu::normalise_rows; C a multiple of 8.
void normalise_rows(const at::Tensor& x, const at::Tensor& affine, bool silu, const at::Tensor& out);

/// softmax(scores * scale) over the last dimension. scores [n, m] fp32 -> [n, m] in `dtype`.
at::Tensor softmax_rows(const at::Tensor& scores, double scale, at::ScalarType dtype);

}  // namespace mgpu::kernels
