#include "vae/tiny_vae_sizes.h"

#include <fmt/format.h>

#include <array>
#include <span>

#include "core/error.h"
#include "core/part_shapes.h"
#include "vae/tiny_layers.h"

namespace mgpu {
namespace {

/// How a kind of file names the layers of the two coders.
struct Layout {
  const char* decoder;
  int first;  ///< of the decoder's layers: TAESD's own lists count the limits put to the latent as layer 0
  const char* encoder;
};

constexpr std::size_t kLevels = 4;  // a latent value stands for 8x8 pixels

constexpr std::array<Layout, 3> kLayouts{{
    {"taesd_decoder.", 1, "taesd_encoder."}, {"decoder.layers.", 0, "encoder.layers."}, {"", 1, ""},  // a decoder alone
}};

const Layout& layout_of(const PartShapes& shapes) {
  for (const Layout& layout : std::span(kLayouts).first(kLayouts.size() - 1))
    if (shapes.has(fmt::format("{}{}.weight", layout.decoder, layout.first))) return layout;
  return kLayouts.back();
}

/// The levels of a coder: runs of blocks from layer `at` on, between which `between` layers change the size.
std::vector<int> blocks_of(const PartShapes& shapes, const std::string& layers, int at, int between) {
  const auto has = [&](int number, const char* tensor) {
    return shapes.has(fmt::format("{}{}.{}", layers, number, tensor));
  };
  std::vector<int> out;
  for (;; at += between) {
    int& count = out.emplace_back(0);
    // A block without tensors before another is missing, not the end.
    for (; has(at, "conv.0.weight") || (!has(at, "weight") && has(at + 1, "conv.0.weight")); ++at) ++count;
    // What changes the size has no bias; the last convolution has one.
    const int resizes = at + between - 1;
    if (!has(resizes, "weight") || has(resizes, "bias")) return out;
  }
}

void check_levels(const TensorFile& file, const char* what, const TinyVaeSizes::Coder& coder) {
  if (coder.blocks.size() == kLevels) return;
  fail_file(file.path(), fmt::format("its {} has {} level{} of blocks, and a tiny autoencoder has {}", what,
                                     coder.blocks.size(), coder.blocks.size() == 1 ? "" : "s", kLevels));
}

void expect(PartShapes& shapes, const std::vector<TinyLayer>& layers) {
  for (const TinyLayer& layer : layers) {
    if (layer.kind == TinyLayer::Kind::Block) {
      for (int i = 0; i < 3; ++i) shapes.conv(convolution_of(layer, i), layer.out, layer.out, 3);
    } else if (layer.bias()) {
      shapes.conv(layer.name, layer.out, layer.in, 3);
    } else {
      shapes.expect(layer.name + ".weight", {layer.out, layer.in, 3, 3});
    }
  }
}

}  // namespace

TinyVaeSizes read_tiny_vae_sizes(PartShapes& shapes) {
  const Layout& layout = layout_of(shapes);
  TinyVaeSizes sizes;
  TinyVaeSizes::Coder& decoder = sizes.decoder;
  decoder.layers = layout.decoder, decoder.first = layout.first;
  const std::string decoder_in = fmt::format("{}{}.weight", decoder.layers, decoder.first);
  sizes.latent_channels = shapes.take(decoder_in, 4, 1);
  decoder.channels = shapes.take(decoder_in, 4, 0);
  decoder.blocks = blocks_of(shapes, decoder.layers, decoder.first + 2, 2);
  check_levels(shapes.file(), "decoder", decoder);
  expect(shapes, decoder_layers(sizes));

  TinyVaeSizes::Coder& encoder = sizes.encoder;
  encoder.layers = layout.encoder;
  const std::string encoder_in = encoder.layers + "0.weight";
  const bool is_there = encoder.layers.empty() ? shapes.has(encoder_in) : shapes.has_any(encoder.layers);
  if (!is_there) return sizes;
  encoder.channels = shapes.take(encoder_in, 4, 0);
  encoder.blocks = blocks_of(shapes, encoder.layers, 1, 1);
  check_levels(shapes.file(), "encoder", encoder);
  expect(shapes, encoder_layers(sizes));
  return sizes;
}

}  // namespace mgpu
