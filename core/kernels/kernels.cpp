#include "core/kernels/kernels.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/kernels/launch.h"

namespace mgpu::kernels {
namespace {

constexpr std::int64_t kVector = 8;
constexpr std::int64_t kMaxChannels = 16384;
constexpr std::int64_t kHeadDim = 128;

Element element_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return Element::F32;
    case at::kHalf:
      return Element::F16;
    case at::kBFloat16:
      return Element::BF16;
    default:
      MGPU_CHECK(false, "no kernel for {}", c10::toString(x.scalar_type()));
  }
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

}  // namespace mgpu::kernels
