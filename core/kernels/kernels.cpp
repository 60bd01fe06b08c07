#include "core/kernels/kernels.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"
#include "core/kernels/launch.h"

namespace mgpu::kernels {
namespace {

constexpr std::int64_t kVector = 8;
constexpr std::int64_t kMaxChannels = 16384;
constexpr std::int64_t kHeadDim = 128;

Element element_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return Element::F32;
    case at::kHalf:
      return Element::F16;
    case at::kBFloat16:
      return Element::BF16;
    default:
      MGPU_CHECK(false, "no kernel for {}", c10::toString(dtype));
  }
}

Element element_of(const at::Tensor& x) {
  return element_of(x.scalar_type());
}

/// One row of `channels` values next to each other, of x's type and device.
void check_row(const at::Tensor& row, const at::Tensor& x, std::int64_t channels) {
  MGPU_CHECK(row.numel() == channels && row.stride(-1) == 1 && row.scalar_type() == x.scalar_type() &&
                 row.device() == x.device(),
             "modulation of {} values for {} channels", row.numel(), channels);
}

/// [1, N, C] with channels next to each other and rows that start on whole vectors.
void check_rows(const at::Tensor& x) {
  MGPU_CHECK(
      x.dim() == 3 && x.size(0) == 1 && x.stride(2) == 1 && x.size(2) % kVector == 0 && x.stride(1) % kVector == 0,
      "tokens [{}] with row stride {}", fmt::join(x.sizes(), ", "), x.dim() > 1 ? x.stride(1) : 0);
}

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& x_in, const at::Tensor& shift, const at::Tensor& scale) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous();
  check_rows(x);
  MGPU_CHECK(x.size(2) <= kMaxChannels, "{} channels", x.size(2));
  check_row(shift, x, x.size(2));
  check_row(scale, x, x.size(2));
  at::Tensor out = at::empty_like(x);
  C10_CUDA_CHECK(launch_layer_norm_modulate(element_of(x), x.const_data_ptr(), shift.const_data_ptr(),
                                            scale.const_data_ptr(), out.mutable_data_ptr(), x.size(1),
                                            static_cast<int>(x.size(2)), c10::cuda::getCurrentCUDAStream()));
  return out;
}

at::Tensor gated_add(const at::Tensor& x_in, const at::Tensor& gate, const at::Tensor& y_in) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), y = y_in.contiguous();
  check_rows(x);
  check_row(gate, x, x.size(2));
  MGPU_CHECK(x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type(), "[{}] + gate * [{}]",
             fmt::join(x.sizes(), ", "), fmt::join(y.sizes(), ", "));
  at::Tensor out = at::empty_like(x);
  C10_CUDA_CHECK(launch_gated_add(element_of(x), x.const_data_ptr(), gate.const_data_ptr(), y.const_data_ptr(),
                                  out.mutable_data_ptr(), x.size(1), static_cast<int>(x.size(2)),
                                  c10::cuda::getCurrentCUDAStream()));
  return out;
}

void split_norm_rotate(const at::Tensor& qkv, const at::Tensor& q_norm, const at::Tensor& k_norm, const at::Tensor& cos,
                       const at::Tensor& sin, std::int64_t first, const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  check_rows(qkv);
  check_row(q_norm, qkv, kHeadDim);
  check_row(k_norm, qkv, kHeadDim);
  const std::int64_t tokens = qkv.size(1), heads = q.size(2);
  MGPU_CHECK(qkv.size(2) == 3 * heads * kHeadDim && first + tokens <= q.size(1),
             "{} columns for {} heads, rows {} + {} of {}", qkv.size(2), heads, first, tokens, q.size(1));
  for (const at::Tensor& t : {q, k, v}) {
    MGPU_CHECK(
        t.is_contiguous() && t.sizes() == q.sizes() && t.size(3) == kHeadDim && t.scalar_type() == qkv.scalar_type(),
        "target [{}]", fmt::join(t.sizes(), ", "));
  }
  for (const at::Tensor& t : {cos, sin}) {
    MGPU_CHECK(t.is_contiguous() && t.scalar_type() == at::kFloat && t.numel() == tokens * kHeadDim / 2,
               "rotary table of {} angles", t.numel());
  }
  const auto rows_from = [&](const at::Tensor& t) {
    return t.select(0, 0).narrow(0, first, tokens).mutable_data_ptr();
  };
  C10_CUDA_CHECK(launch_split_norm_rotate(element_of(qkv), qkv.const_data_ptr(), qkv.stride(1), q_norm.const_data_ptr(),
                                          k_norm.const_data_ptr(), cos.const_data_ptr<float>(),
                                          sin.const_data_ptr<float>(), rows_from(q), rows_from(k), rows_from(v), tokens,
                                          static_cast<int>(heads), c10::cuda::getCurrentCUDAStream()));
}

at::Tensor concat_gelu(const at::Tensor& a, const at::Tensor& b) {
  const c10::cuda::CUDAGuard guard(a.device());
  check_rows(a);
  check_rows(b);
  MGPU_CHECK(a.size(1) == b.size(1) && a.scalar_type() == b.scalar_type(), "{} rows beside {}", a.size(1), b.size(1));
  at::Tensor out = at::empty({1, a.size(1), a.size(2) + b.size(2)}, a.options());
  C10_CUDA_CHECK(launch_concat_gelu(element_of(a), a.const_data_ptr(), a.stride(1), static_cast<int>(a.size(2)),
                                    b.const_data_ptr(), b.stride(1), static_cast<int>(b.size(2)),
                                    out.mutable_data_ptr(), a.size(1), c10::cuda::getCurrentCUDAStream()));
  return out;
}

std::int64_t segment_width(std::int64_t channels) {
  constexpr std::int64_t values = 32768;  // a block's share: enough to fill the GPU at every size, few entries to add
  return std::max<std::int64_t>(1, values / channels);
}

void finish_rows(const at::Tensor& product, const at::Tensor& bias, const at::Tensor& residual, const at::Tensor& out,
                 const at::Tensor& sums, bool upsampled) {
  const c10::cuda::CUDAGuard guard(out.device());
  const std::int64_t rows = out.size(0), width = out.size(1), channels = out.size(2);
  MGPU_CHECK(channels % 32 == 0 && channels <= 2048, "{} channels", channels);
  MGPU_CHECK(product.is_contiguous() && out.is_contiguous() && (!residual.defined() || residual.is_contiguous()),
             "rows [{}] and their sources lie apart", fmt::join(out.sizes(), ", "));
  if (upsampled)
    MGPU_CHECK(product.sizes() == at::IntArrayRef({rows / 2 + 1, width / 2 + 1, 4 * channels}), "[{}] becomes no [{}]",
               fmt::join(product.sizes(), ", "), fmt::join(out.sizes(), ", "));
  else
    MGPU_CHECK(product.sizes() == out.sizes(), "[{}] becomes no [{}]", fmt::join(product.sizes(), ", "),
               fmt::join(out.sizes(), ", "));
  check_row(bias, out, channels);
  const std::int64_t segment = segment_width(channels), segments = (width + segment - 1) / segment;
  MGPU_CHECK(!sums.defined() || (sums.is_contiguous() && sums.sizes() == at::IntArrayRef({rows, segments, 32, 2})),
             "sums [{}]", fmt::join(sums.sizes(), ", "));
  const FinishRows work{.product = product.const_data_ptr(),
                        .bias = bias.const_data_ptr(),
                        .residual = residual.defined() ? residual.const_data_ptr() : nullptr,
                        .out = out.mutable_data_ptr(),
                        .sums = sums.defined() ? sums.mutable_data_ptr<float>() : nullptr,
                        .rows = static_cast<int>(rows),
                        .width = static_cast<int>(width),
                        .channels = static_cast<int>(channels),
                        .segments = static_cast<int>(segments),
                        .segment_width = static_cast<int>(segment),
                        .upsampled = upsampled};
  C10_CUDA_CHECK(launch_finish_rows(element_of(out), work, c10::cuda::getCurrentCUDAStream()));
}

at::Tensor group_affine(const at::Tensor& sums, double positions, const at::Tensor& weight, const at::Tensor& bias,
                        double eps) {
  const c10::cuda::CUDAGuard guard(sums.device());
  const std::int64_t channels = weight.numel();
  check_row(bias, weight, channels);
  MGPU_CHECK(sums.is_contiguous() && sums.scalar_type() == at::kFloat && channels % 32 == 0, "sums for {} channels",
             channels);
  at::Tensor affine = at::empty({2, channels}, sums.options());
  C10_CUDA_CHECK(launch_group_affine(element_of(weight), sums.const_data_ptr<float>(), sums.numel() / 64, positions,
                                     weight.const_data_ptr(), bias.const_data_ptr(), static_cast<float>(eps),
                                     static_cast<int>(channels), affine.mutable_data_ptr<float>(),
                                     c10::cuda::getCurrentCUDAStream()));
  return affine;
}

void normalise_rows(const at::Tensor& x, const at::Tensor& affine, bool silu, const at::Tensor& out) {
  const c10::cuda::CUDAGuard guard(x.device());
  const std::int64_t channels = x.size(2);
  MGPU_CHECK(x.is_contiguous() && out.is_contiguous() && x.sizes() == out.sizes() && channels % kVector == 0,
             "rows [{}] to [{}]", fmt::join(x.sizes(), ", "), fmt::join(out.sizes(), ", "));
  MGPU_CHECK(affine.is_contiguous() && affine.sizes() == at::IntArrayRef({2, channels}), "{} factors", affine.numel());
  C10_CUDA_CHECK(launch_normalise_rows(element_of(x), x.const_data_ptr(), affine.const_data_ptr<float>(), silu,
                                       out.mutable_data_ptr(), x.size(0) * x.size(1), static_cast<int>(channels),
                                       c10::cuda::getCurrentCUDAStream()));
}

at::Tensor softmax_rows(const at::Tensor& scores, double scale, at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(scores.device());
  MGPU_CHECK(scores.dim() == 2 && scores.is_contiguous() && scores.scalar_type() == at::kFloat, "scores [{}]",
             fmt::join(scores.sizes(), ", "));
  at::Tensor out = at::empty(scores.sizes(), scores.options().dtype(dtype));
  C10_CUDA_CHECK(launch_softmax_rows(element_of(dtype), scores.const_data_ptr<float>(), static_cast<float>(scale),
                                     out.mutable_data_ptr(), scores.size(0), scores.size(1),
                                     c10::cuda::getCurrentCUDAStream()));
  return out;
}

}  // namespace mgpu::kernels
