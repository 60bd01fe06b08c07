#include "vae/tiny_autoencoder.h"

#include <ATen/ATen.h>

#include <array>

#include "core/stop_point.h"
#include "vae/tiny_layers.h"

namespace mgpu {
namespace {

using Layer = std::function<at::Tensor(at::Tensor)>;

/// Channels last: the layout in which tensor cores and oneDNN convolve without rearranging.
at::Tensor channels_last(const at::Tensor& x) {
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

Conv load_conv(const Weights& weights, const std::string& name, bool bias) {
  return {channels_last(weights.get(name + ".weight")), bias ? weights.get(name + ".bias") : at::Tensor()};
}

at::Tensor convolve(const at::Tensor& x, const Conv& w, int stride = 1) {
  return at::conv2d(x, w.weight, w.bias, stride, /*padding=*/1);
}

Layer load_block(const Weights& weights, const TinyLayer& layer) {
  std::array<Conv, 3> convs;
  for (std::size_t i = 0; i < convs.size(); ++i)
    convs[i] = load_conv(weights, convolution_of(layer, static_cast<int>(i)), true);
  return [convs](const at::Tensor& x) {
    at::Tensor inner = convolve(x, convs[0]).relu_();
    inner = convolve(inner, convs[1]).relu_();
    inner = convolve(inner, convs[2]);
    return inner.add_(x).relu_();
  };
}

Layer load_layer(const Weights& weights, const TinyLayer& layer) {
  if (layer.kind == TinyLayer::Kind::Block) return load_block(weights, layer);
  const Conv conv = load_conv(weights, layer.name, layer.bias());
  switch (layer.kind) {
    case TinyLayer::Kind::Enlarge:
      return [conv](at::Tensor x) {
        x = at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
        return convolve(x, conv);
      };
    case TinyLayer::Kind::Halve:
      return [conv](const at::Tensor& x) { return convolve(x, conv, 2); };
    default:
      return [conv](const at::Tensor& x) { return convolve(x, conv); };
  }
}

std::vector<Layer> load_layers(const Weights& weights, const std::vector<TinyLayer>& layers) {
  std::vector<Layer> out;
  for (const TinyLayer& layer : layers) out.push_back(load_layer(weights, layer));
  return out;
}

at::TensorOptions options_of(const Weights& weights) {
  return at::TensorOptions(weights.device()).dtype(weights.dtype());
}

at::Tensor run(std::span<const Layer> layers, at::Tensor x) {
  for (const Layer& layer : layers) {
    stop_point(x.device());
    x = layer(std::move(x));
  }
  return x;
}

}  // namespace

TinyDecoder::TinyDecoder(const TinyVaeSizes& sizes, const Weights& weights)
    : options_(options_of(weights)), layers_(load_layers(weights, decoder_layers(sizes))) {}

at::Tensor TinyDecoder::forward(const at::Tensor& latent) const {
  constexpr double kLimit = 3.0;
  const at::Tensor limited = at::tanh(latent.to(options_) / kLimit).mul_(kLimit);
  at::Tensor x = layers_.front()(channels_last(limited)).relu_();
  return run(std::span(layers_).subspan(1), std::move(x));
}

TinyEncoder::TinyEncoder(const TinyVaeSizes& sizes, const Weights& weights)
    : options_(options_of(weights)), layers_(load_layers(weights, encoder_layers(sizes))) {}

at::Tensor TinyEncoder::forward(const at::Tensor& image) const {
  return run(layers_, channels_last(image.to(options_)));
}

}  // namespace mgpu
