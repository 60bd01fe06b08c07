#include "core/nn.h"

#include <ATen/ATen.h>

#include <cmath>

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

RotaryTable rotary_table(const at::Tensor& ids, at::IntArrayRef axes_dim, double theta) {
  MGPU_CHECK_EQ(ids.size(1), static_cast<std::int64_t>(axes_dim.size()));
  std::vector<at::Tensor> angles;
  for (std::size_t axis = 0; axis < axes_dim.size(); ++axis) {
    const std::int64_t dim = axes_dim[axis];
    const at::Tensor exponent =
        at::arange(0, dim, 2, at::TensorOptions(at::kDouble).device(ids.device())) / static_cast<double>(dim);
    const at::Tensor frequency = at::pow(theta, -exponent);
    angles.push_back(ids.select(1, static_cast<std::int64_t>(axis)).to(at::kDouble).unsqueeze(1) * frequency);
  }
  const at::Tensor all = at::cat(angles, 1);
  return {all.cos().to(at::kFloat), all.sin().to(at::kFloat)};
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

at::Tensor gelu_tanh(const at::Tensor& x) {
  return at::gelu(x, "tanh");
}

at::Tensor concat_gelu(const at::Tensor& a, const at::Tensor& b) {
  if (a.is_cuda()) return kernels::concat_gelu(a, b);
  return at::cat({a, gelu_tanh(b)}, -1);
}

at::Tensor geglu(const at::Tensor& x) {
  const std::vector<at::Tensor> halves = x.chunk(2, -1);
  return halves[0] * at::gelu(halves[1], "none");
}

at::Tensor sinusoidal_embedding(const at::Tensor& values, std::int64_t dim) {
  const std::int64_t half = dim / 2;
  // Multiplied, then divided, in fp32: the order of the reference, whose rounding large values make visible.
  const at::Tensor frequency =
      at::exp(at::arange(half, values.options().dtype(at::kFloat)) * -std::log(10000.0) / static_cast<double>(half));
  const at::Tensor angle = values.to(at::kFloat).unsqueeze(1) * frequency;
  return at::cat({angle.cos(), angle.sin()}, -1);
}

}  // namespace mgpu
