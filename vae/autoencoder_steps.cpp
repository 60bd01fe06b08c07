#include "vae/autoencoder_steps.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/strings.h"

namespace mgpu::steps {
namespace {

constexpr double kEps = 1e-6;

/// Channels last: the layout in which tensor cores and oneDNN convolve without rearranging, and in which attention's
/// tokens are the rows of the image as it lies.
at::Tensor channels_last(const at::Tensor& x) {
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

void check_shape(const Weights& weights, const std::string& name, const std::vector<std::int64_t>& expected) {
  const auto& shape = weights.shape(name);
  if (shape != expected)
    fail_file(weights.file().path(),
              fmt::format("tensor {} has shape {}, expected {}", in_quotes(weights.prefix() + name), shape_text(shape),
                          shape_text(expected)));
}

Conv load_conv(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out, std::int64_t side) {
  check_shape(weights, name + ".weight", {out, in, side, side});
  check_shape(weights, name + ".bias", {out});
  Conv conv = weights.conv(name);
  conv.weight = channels_last(conv.weight);
  return conv;
}

Norm load_norm(const Weights& weights, const std::string& name, std::int64_t channels) {
  check_shape(weights, name + ".weight", {channels});
  check_shape(weights, name + ".bias", {channels});
  return weights.norm(name);
}

/// A 1x1 convolution as what it is to tokens: a matrix.
Linear load_linear(const Weights& weights, const std::string& name, std::int64_t channels) {
  const Conv conv = load_conv(weights, name, channels, channels, 1);
  Linear linear;
  linear.weight = conv.weight.reshape({channels, channels}).contiguous();
  linear.bias = conv.bias;
  return linear;
}

at::Tensor norm_silu(const at::Tensor& x, const Norm& norm, const Ops& ops) {
  at::Tensor normal = ops.group_norm(x, norm, kEps);
  return at::silu_(normal);
}

}  // namespace

AutoencoderStep conv3x3(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  return {name, [conv = load_conv(weights, name, in, out, 3)](const at::Tensor& x, const Ops& ops) {
            return ops.conv3x3(channels_last(x), conv);
          }};
}

AutoencoderStep conv1x1(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  return {name, [conv = load_conv(weights, name, in, out, 1)](const at::Tensor& x, const Ops&) {
            return at::conv2d(channels_last(x), conv.weight, conv.bias);
          }};
}

AutoencoderStep residual(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  const Norm norm1 = load_norm(weights, name + ".norm1", in);
  const Conv conv1 = load_conv(weights, name + ".conv1", in, out, 3);
  const Norm norm2 = load_norm(weights, name + ".norm2", out);
  const Conv conv2 = load_conv(weights, name + ".conv2", out, out, 3);
  Conv shortcut;
  if (in != out) shortcut = load_conv(weights, name + ".nin_shortcut", in, out, 1);
  return {name, [=](const at::Tensor& x, const Ops& ops) {
            const at::Tensor inner = ops.conv3x3(norm_silu(x, norm1, ops), conv1);
            const at::Tensor change = ops.conv3x3(norm_silu(inner, norm2, ops), conv2);
            return change + (shortcut.weight.defined() ? at::conv2d(x, shortcut.weight, shortcut.bias) : x);
          }};
}

AutoencoderStep attention(const Weights& weights, const std::string& name, std::int64_t channels) {
  const Norm norm = load_norm(weights, name + ".norm", channels);
  const Linear q = load_linear(weights, name + ".q", channels);
  const Linear k = load_linear(weights, name + ".k", channels);
  const Linear v = load_linear(weights, name + ".v", channels);
  const Linear out = load_linear(weights, name + ".proj_out", channels);
  return {name, [=](const at::Tensor& x, const Ops& ops) {
            const std::int64_t b = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
            const at::Tensor tokens = ops.group_norm(x, norm, kEps).permute({0, 2, 3, 1}).reshape({b, 1, h * w, c});
            // Plain products: one head cannot be split over devices by columns, and tokens need no other placement.
            const auto project = [](const at::Tensor& t, const Linear& l) { return at::linear(t, l.weight, l.bias); };
            const at::Tensor mixed = ops.attention(project(tokens, q), project(tokens, k), project(tokens, v));
            return x + project(mixed, out).view({b, h, w, c}).permute({0, 3, 1, 2});
          }};
}

AutoencoderStep upsample(const Weights& weights, const std::string& name, std::int64_t channels) {
  return {name,
          [conv = load_conv(weights, name + ".conv", channels, channels, 3)](const at::Tensor& x, const Ops& ops) {
            return ops.conv3x3(at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}), conv);
          }};
}

AutoencoderStep downsample(const Weights& weights, const std::string& name, std::int64_t channels) {
  return {name, [conv = load_conv(weights, name + ".conv", channels, channels, 3)](const at::Tensor& x, const Ops&) {
            const at::Tensor padded = at::constant_pad_nd(x, {0, 1, 0, 1});
            return at::conv2d(padded, conv.weight, conv.bias, /*stride=*/2);
          }};
}

AutoencoderStep head(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  const Norm norm = load_norm(weights, name + ".norm_out", in);
  const Conv conv = load_conv(weights, name + ".conv_out", in, out, 3);
  return {name + ".conv_out",
          [=](const at::Tensor& x, const Ops& ops) { return ops.conv3x3(norm_silu(x, norm, ops), conv); }};
}

}  // namespace mgpu::steps
