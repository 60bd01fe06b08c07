#include "vae/autoencoder_steps.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/strings.h"

namespace mgpu::steps {
namespace {

/// Channels last: the layout in which tensor cores and oneDNN convolve without rearranging.
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

}  // namespace

AutoencoderStep conv3x3(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  return {name, [conv = load_conv(weights, name, in, out, 3)](ImageRows x, const BandOps& ops) {
            return ops.conv3x3(x, conv);
          }};
}

AutoencoderStep conv1x1(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  return {name, [conv = load_conv(weights, name, in, out, 1)](ImageRows x, const BandOps& ops) {
            return ops.conv1x1(x, conv);
          }};
}

AutoencoderStep residual(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  const Norm norm1 = load_norm(weights, name + ".norm1", in);
  const Conv conv1 = load_conv(weights, name + ".conv1", in, out, 3);
  const Norm norm2 = load_norm(weights, name + ".norm2", out);
  const Conv conv2 = load_conv(weights, name + ".conv2", out, out, 3);
  Conv shortcut;
  if (in != out) shortcut = load_conv(weights, name + ".nin_shortcut", in, out, 1);
  return {name, [=](ImageRows x, const BandOps& ops) {
            ImageRows inner = ops.norm_silu_conv3x3(x, norm1, conv1);
            ops.norm_silu_conv3x3_add(inner, norm2, conv2, x, shortcut);
            return inner;
          }};
}

AutoencoderStep attention(const Weights& weights, const std::string& name, std::int64_t channels) {
  const BandOps::Attention attention{.norm = load_norm(weights, name + ".norm", channels),
                                     .q = load_linear(weights, name + ".q", channels),
                                     .k = load_linear(weights, name + ".k", channels),
                                     .v = load_linear(weights, name + ".v", channels),
                                     .out = load_linear(weights, name + ".proj_out", channels)};
  return {name, [attention](ImageRows x, const BandOps& ops) {
            ops.attention_add(x, attention);
            return x;
          }};
}

AutoencoderStep upsample(const Weights& weights, const std::string& name, std::int64_t channels) {
  Conv phases = load_conv(weights, name + ".conv", channels, channels, 3);
  phases.weight = channels_last(phase_weights(phases.weight));
  return {name, [phases](ImageRows x, const BandOps& ops) { return ops.upsample_conv3x3(x, phases); }};
}

AutoencoderStep downsample(const Weights& weights, const std::string& name, std::int64_t channels) {
  return {name, [conv = load_conv(weights, name + ".conv", channels, channels, 3)](ImageRows x, const BandOps& ops) {
            return ops.downsample_conv3x3(x, conv);
          }};
}

AutoencoderStep head(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out) {
  const Norm norm = load_norm(weights, name + ".norm_out", in);
  const Conv conv = load_conv(weights, name + ".conv_out", in, out, 3);
  return {name + ".conv_out", [=](ImageRows x, const BandOps& ops) { return ops.norm_silu_conv3x3(x, norm, conv); }};
}

}  // namespace mgpu::steps
