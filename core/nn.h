#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mgpu {

/// The small per-token operations between a transformer's matrix products. They need no placement (every device does
/// its own tokens), so they are free functions: on CUDA one kernel of ours each (core/kernels/), elsewhere LibTorch's
/// operations. Statistics and products are computed in fp32 and rounded once.

/// LayerNorm without affine (eps 1e-6), then * (1 + scale) + shift. x [B, N, C], shift and scale [B, 1, C] -> [B, N,
/// C].
at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale);

/// x + gate * y. x, y [B, N, C], gate [B, 1, C].
at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);

/// Cosines and sines of rotary position embedding for a sequence, each [N, D / 2] in fp32.
struct RotaryTable {
  at::Tensor cos;
  at::Tensor sin;
};

/// Rotary table, on `device`, of multi-axis positions (Flux: text, row, column). ids [N, axes] int64 in main memory,
/// none negative; axes_dim the even head dimensions that each axis turns. Angles are computed in fp64, as in
/// https://github.com/black-forest-labs/flux (math.py, rope), and their cosines and sines rounded once.
RotaryTable rotary_table(const at::Tensor& ids, at::IntArrayRef axes_dim, double theta, at::Device device = at::kCPU);

/// Queries, keys and values of a sequence, each [B, H, N, D]; token-major in memory, so that parts of the sequence are
/// rows.
struct Qkv {
  at::Tensor q, k, v;
};

/// Room for a sequence of `tokens` tokens with the batch, type and device of x [B, ...].
Qkv empty_qkv(const at::Tensor& x, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim);

/// Splits packed projections [B, N, 3 * H * D] (order q, k, v), applies RMS norm with weights q_norm and k_norm [D]
/// (eps 1e-6) over the head dimension, turns pairs (2i, 2i + 1) by the table, and writes rows first..first+N-1 of
/// `out`.
void split_norm_rotate(const at::Tensor& qkv, const at::Tensor& q_norm, const at::Tensor& k_norm,
                       const RotaryTable& rotary, std::int64_t first, const Qkv& out);

/// a [B, N, A] beside gelu_tanh(b [B, N, B]) -> [B, N, A + B].
at::Tensor concat_gelu(const at::Tensor& a, const at::Tensor& b);

/// GEGLU (Shazeer 2020, arXiv:2002.05202) with the exact GELU: the first half of the last dimension times GELU of the
/// second. x [..., 2 C] -> [..., C].
at::Tensor geglu(const at::Tensor& x);

/// Sinusoids of the values (cosines first, max period 10000), [values, dim] fp32 in main memory. Frequencies and angles
/// are fp32, as in the reference; each exponential, cosine and sine is computed in fp64 and rounded, since LibTorch's
/// own in fp32 differ between CPUs.
at::Tensor sinusoidal_embedding(const std::vector<double>& values, std::int64_t dim);

}  // namespace mgpu
