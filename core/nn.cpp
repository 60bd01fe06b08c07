#include "core/nn.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/kernels/kernels.h"

namespace mgpu {
namespace {

constexpr double kEps = 1e-6;

/// RMS norm over the last dimension and rotation of neighbouring pairs; x [B, N, H, D], fp32 inside.
at::Tensor norm_rotate(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor inverse = (wide.square().mean(-1, /*keepdim=*/true) + kEps).rsqrt();
  const at::Tensor pairs = (wide * inverse * weight.to(at::kFloat)).unflatten(-1, {-1, 2});
  const at::Tensor even = pairs.select(-1, 0), odd = pairs.select(-1, 1);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);  // [N, 1, D / 2]: the same for every head
  return at::stack({even * c - odd * s, even * s + odd * c}, -1).flatten(-2);
}

/// Cosines and sines of positions 0 to places - 1 of one axis, [places, dim / 2] fp32.
struct AxisTable {
  at::Tensor cos, sin;
};

/// By the C library's functions, whose fp64 is the same on every CPU that we know; LibTorch's fp64 is not.
AxisTable axis_table(std::int64_t places, std::int64_t dim, double theta) {
  const std::int64_t half = dim / 2;
  AxisTable out{at::empty({places, half}, at::kFloat), at::empty({places, half}, at::kFloat)};
  float *cos = out.cos.mutable_data_ptr<float>(), *sin = out.sin.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(theta, -static_cast<double>(2 * i) / static_cast<double>(dim));
    for (std::int64_t place = 0; place < places; ++place) {
      const double angle = static_cast<double>(place) * frequency;
      cos[place * half + i] = static_cast<float>(std::cos(angle));
      sin[place * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return out;
}

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale) {
  if (x.is_cuda()) return kernels::layer_norm_modulate(x, shift, scale);
  const at::Tensor normal = at::layer_norm(x, {x.size(-1)}, {}, {}, kEps);
  return at::addcmul(shift, normal, scale + 1);
}

at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y) {
  if (x.is_cuda()) return kernels::gated_add(x, gate, y);
  return at::addcmul(x, gate, y);
}

RotaryTable rotary_table(const at::Tensor& ids, at::IntArrayRef axes_dim, double theta, at::Device device) {
  MGPU_CHECK_EQ(ids.size(1), static_cast<std::int64_t>(axes_dim.size()));
  const std::int64_t half = std::accumulate(axes_dim.begin(), axes_dim.end(), std::int64_t{0}) / 2;
  const at::TensorOptions options = at::TensorOptions(at::kFloat).device(device);
  RotaryTable out{at::empty({ids.size(0), half}, options), at::empty({ids.size(0), half}, options)};
  std::int64_t begin = 0;
  for (std::size_t axis = 0; axis < axes_dim.size(); ++axis) {
    const at::Tensor places = ids.select(1, static_cast<std::int64_t>(axis));
    const AxisTable table = axis_table(places.max().item<std::int64_t>() + 1, axes_dim[axis], theta);
    const at::Tensor there = places.to(device);
    const std::int64_t width = axes_dim[axis] / 2;
    out.cos.narrow(1, begin, width).copy_(table.cos.to(device).index_select(0, there));
    out.sin.narrow(1, begin, width).copy_(table.sin.to(device).index_select(0, there));
    begin += width;
  }
  return out;
}

Qkv empty_qkv(const at::Tensor& x, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim) {
  const auto room = [&] { return at::empty({x.size(0), tokens, heads, head_dim}, x.options()).transpose(1, 2); };
  return {room(), room(), room()};
}

void split_norm_rotate(const at::Tensor& qkv, const at::Tensor& q_norm, const at::Tensor& k_norm,
                       const RotaryTable& rotary, std::int64_t first, const Qkv& out) {
  const std::int64_t tokens = qkv.size(1), dim = q_norm.size(0);
  const at::Tensor cos = rotary.cos.narrow(0, first, tokens), sin = rotary.sin.narrow(0, first, tokens);
  const at::Tensor q = out.q.transpose(1, 2), k = out.k.transpose(1, 2), v = out.v.transpose(1, 2);  // [B, N, H, D]
  if (qkv.is_cuda()) {
    kernels::split_norm_rotate(qkv, q_norm, k_norm, cos, sin, first, q, k, v);
    return;
  }
  const std::vector<at::Tensor> parts = qkv.unflatten(-1, {3, -1, dim}).unbind(2);
  q.narrow(1, first, tokens).copy_(norm_rotate(parts[0], q_norm, cos, sin));
  k.narrow(1, first, tokens).copy_(norm_rotate(parts[1], k_norm, cos, sin));
  v.narrow(1, first, tokens).copy_(parts[2]);
}

at::Tensor concat_gelu(const at::Tensor& a, const at::Tensor& b) {
  if (a.is_cuda()) return kernels::concat_gelu(a, b);
  return at::cat({a, elementwise::gelu_tanh(b)}, -1);
}

at::Tensor geglu(const at::Tensor& x) {
  const std::vector<at::Tensor> halves = x.chunk(2, -1);
  return halves[0] * elementwise::gelu(halves[1]);
}

at::Tensor sinusoidal_embedding(const std::vector<double>& values, std::int64_t dim) {
  const std::int64_t half = dim / 2;
  const auto rows = static_cast<std::int64_t>(values.size());
  at::Tensor out = at::empty({rows, 2 * half}, at::kFloat);
  float* row = out.mutable_data_ptr<float>();
  const auto log_period = static_cast<float>(-std::log(10000.0));
  for (std::int64_t r = 0; r < rows; ++r, row += 2 * half) {
    for (std::int64_t i = 0; i < half; ++i) {
      // Multiplied, then divided, in fp32: the order of the reference, whose rounding large values make visible.
      const float exponent = static_cast<float>(i) * log_period / static_cast<float>(half);
      const auto frequency = static_cast<float>(std::exp(static_cast<double>(exponent)));
      const double angle = static_cast<float>(values[static_cast<std::size_t>(r)]) * frequency;
      row[i] = static_cast<float>(std::cos(angle));
      row[half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return out;
}

}  // namespace mgpu
