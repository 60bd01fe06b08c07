#include "core/ops.h"

#include <ATen/ATen.h>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/image_nn.h"
#include "core/nn.h"

namespace mgpu {
namespace {

constexpr int kGroups = 32;  // every autoencoder and UNet of the families we know

/// x [..., in] as rows [n, in], and what `out` [n, channels] is in x's own shape.
at::Tensor rows_of(const at::Tensor& x) {
  return x.reshape({-1, x.size(-1)});
}

at::Tensor shaped_as(const at::Tensor& x, const at::Tensor& out) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = out.size(1);
  return out.view(shape);
}

/// y = alpha (x W^T) + bias: the factor of a packed weight enters as alpha, in the accumulator's fp32, so that fp8 with
/// one scale is widened without rounding.
at::Tensor linear(const at::Tensor& x, const Linear& w) {
  if (w.weight.is_plain(x.scalar_type())) return at::linear(x, w.weight.payload, w.bias);
  const at::Tensor wide = w.weight.unscaled(x.scalar_type());
  const at::Tensor rows = rows_of(x);
  const at::Tensor y = w.bias.defined()
                           ? at::addmm(w.bias.to(x.scalar_type()), rows, wide.t(), 1, w.weight.scale)
                           : at::addmm(at::zeros({wide.size(0)}, rows.options()), rows, wide.t(), 0, w.weight.scale);
  return shaped_as(x, y);
}

/// x [1, C, H, W], channels last in memory as the result. LibTorch's own adds up in an order that the number of threads
/// decides.
at::Tensor group_norm_of_rows(const at::Tensor& x, const Norm& w, double eps) {
  MGPU_CHECK_EQ(x.size(0), 1);
  const at::Tensor image = x.permute({0, 2, 3, 1}).contiguous().squeeze(0), out = at::empty_like(image);
  const at::Tensor sums = empty_sums(image);
  sum_rows(image, sums);
  normalise_rows(image, group_affine(sums, static_cast<double>(x.size(2) * x.size(3)), w, eps), /*with_silu=*/false,
                 out);
  return out.unsqueeze(0).permute({0, 3, 1, 2});
}

}  // namespace

at::Tensor LocalOps::linear_col(const at::Tensor& x, const Linear& w) const {
  return linear(x, w);
}

at::Tensor LocalOps::linear_col_gelu(const at::Tensor& x, const Linear& w) const {
  const bool in_epilogue = x.is_cuda() && w.bias.defined() && w.weight.is_plain(x.scalar_type());
  if (!in_epilogue) return elementwise::gelu_tanh(linear(x, w));
  return shaped_as(x, at::_addmm_activation(w.bias, rows_of(x), w.weight.payload.t(), 1, 1, /*use_gelu=*/true));
}

at::Tensor LocalOps::linear_row(const at::Tensor& x, const Linear& w) const {
  return linear(x, w);
}

at::Tensor LocalOps::attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& options) const {
  const std::optional<double> scale = options.scale == 0.0 ? std::nullopt : std::optional(options.scale);
  const std::optional<at::Tensor> bias = options.bias.defined() ? std::optional(options.bias) : std::nullopt;
  return at::scaled_dot_product_attention(q, k, v, bias, /*dropout_p=*/0.0, options.causal, scale);
}

at::Tensor LocalOps::conv3x3(const at::Tensor& x, const Conv& w, int stride) const {
  MGPU_CHECK_EQ(w.weight.size(2), 3);
  return at::conv2d(x, w.weight, w.bias, stride, /*padding=*/1);
}

at::Tensor LocalOps::group_norm(const at::Tensor& x, const Norm& w, double eps) const {
  if (!x.is_cuda()) return group_norm_of_rows(x, w, eps);
  return at::group_norm(x, kGroups, w.weight, w.bias, eps, /*cudnn_enabled=*/false);
}

}  // namespace mgpu
