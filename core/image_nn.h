#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/weights.h"

namespace mgpu {

// The operations between an autoencoder's convolutions, on rows of one image with channels last, [rows, width, C] and
// contiguous, so that rows of it are contiguous too. On CUDA one kernel of ours each (core/kernels/), elsewhere
// LibTorch's operations and loops. All is computed in fp32 and rounded once.
//
// A group normalisation's statistics come from sums that are taken as the image is written, row by row: they depend on
// nothing but the row, so that an image's statistics have the same bits however its rows were dealt to strips and
// devices.

/// Room for an image's sums, [rows, segments, 32, 2] in fp32, on a CPU in fp64: of each row, in segments of a width
/// that the number of channels fixes, each group's values and their squares.
at::Tensor empty_sums(const at::Tensor& image);

/// The sums of an image on a CPU, [R, W, C], C a multiple of 32, into empty_sums(image).
void sum_rows(const at::Tensor& image, const at::Tensor& sums);

/// out = product + bias + residual, and its sums. product [R, W, C] is what a convolution gave without its bias, and
/// may be written to; bias [C]; residual [R, W, C] or undefined, or out itself; out [R, W, C]; sums as empty_sums(out),
/// or undefined: not wanted. C a multiple of 32 where they are.
void finish_rows(const at::Tensor& product, const at::Tensor& bias, const at::Tensor& residual, const at::Tensor& out,
                 const at::Tensor& sums);

/// A 3x3 convolution after an enlargement to twice the size by repeating pixels, as what it is to the smaller image:
/// four 2x2 convolutions, one for each parity of row and column, each weight a sum of those that meet the same pixel.
/// weight [C', C, 3, 3] -> [4 C', C, 2, 2], phase (row parity, column parity) slowest; summed in fp32, rounded once.
at::Tensor phase_weights(const at::Tensor& weight);

/// The same, where the product is that of four-phase weights over the smaller image with a pixel of margin on every
/// side: product [R / 2 + 1, W / 2 + 1, 4 C] -> out [R, W, C].
void finish_upsampled_rows(const at::Tensor& product, const at::Tensor& bias, const at::Tensor& out,
                           const at::Tensor& sums);

/// Group normalisation as scale and shift of each channel, [2, C] in fp32, from the sums of `positions` pixels.
at::Tensor group_affine(const at::Tensor& sums, double positions, const Norm& norm, double eps);

/// out = x * affine[0] + affine[1], then SiLU where asked. x, out [R, W, C], affine [2, C] fp32.
void normalise_rows(const at::Tensor& x, const at::Tensor& affine, bool with_silu, const at::Tensor& out);

/// softmax(q k^T / sqrt(D)) v of one head of any width. q [N, D], k and v [M, D] -> [N, D]. On CUDA two products with
/// the scores in fp32 between them: N * M * 6 bytes in 16-bit types.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace mgpu
