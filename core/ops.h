#pragma once

#include <ATen/core/Tensor.h>

#include "core/weights.h"

namespace mgpu {

/// What the blocks of every model are made of. A placement supplies the meaning: on one device the plain operation
/// (LocalOps); tensor, sequence and patch parallelism are each one class that implements these, so that no model text
/// knows of devices.
class Ops {
 public:
  virtual ~Ops() = default;

  /// x [..., in] -> [..., out]; a parallel placement may keep only this device's share of the output columns.
  virtual at::Tensor linear_col(const at::Tensor& x, const Linear& w) const = 0;
  /// GELU (tanh approximation) of linear_col. On a GPU it is part of the product's epilogue and takes no pass of its
  /// own.
  virtual at::Tensor linear_col_gelu(const at::Tensor& x, const Linear& w) const = 0;
  /// x [..., in] -> [..., out], complete: a parallel placement reduces the partial sums over input columns.
  virtual at::Tensor linear_row(const at::Tensor& x, const Linear& w) const = 0;
  /// softmax(q k^T * scale + bias) v. q [B, H, N, D], k and v [B, H, M, D] -> [B, H, N, D]. scale 0 means 1 / sqrt(D);
  /// bias [1, H, N, M] or undefined; causal masks keys after the query.
  struct AttentionOptions {
    double scale = 0.0;
    bool causal = false;
    at::Tensor bias;
  };
  virtual at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& options) const = 0;
  at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
    return attention(q, k, v, AttentionOptions{});
  }
  /// 3x3 convolution with zero padding 1; x [B, C, H, W] -> [B, C', H, W], or half as many rows and columns (rounded
  /// up) at a stride of 2.
  virtual at::Tensor conv3x3(const at::Tensor& x, const Conv& w, int stride) const = 0;
  at::Tensor conv3x3(const at::Tensor& x, const Conv& w) const { return conv3x3(x, w, 1); }
  /// Group normalisation over 32 groups, statistics in fp32; x [B, C, H, W].
  virtual at::Tensor group_norm(const at::Tensor& x, const Norm& w, double eps) const = 0;
};

/// One device: every operation is LibTorch's own.
class LocalOps final : public Ops {
 public:
  using Ops::attention;
  using Ops::conv3x3;
  at::Tensor linear_col(const at::Tensor& x, const Linear& w) const override;
  at::Tensor linear_col_gelu(const at::Tensor& x, const Linear& w) const override;
  at::Tensor linear_row(const at::Tensor& x, const Linear& w) const override;
  at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const AttentionOptions& options) const override;
  at::Tensor conv3x3(const at::Tensor& x, const Conv& w, int stride) const override;
  at::Tensor group_norm(const at::Tensor& x, const Norm& w, double eps) const override;
};

}  // namespace mgpu
