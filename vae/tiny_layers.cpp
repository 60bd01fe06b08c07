#include "vae/tiny_layers.h"

#include <fmt/format.h>

namespace mgpu {
namespace {

constexpr int kImageChannels = 3;

/// Hands out layers with their names and channels.
class Numbered {
 public:
  explicit Numbered(const TinyVaeSizes::Coder& coder) : coder_(coder), next_(coder.first) {}

  void add(TinyLayer::Kind kind, int in, int out) {
    layers_.push_back({kind, fmt::format("{}{}", coder_.layers, next_++), in, out});
  }
  void add(TinyLayer::Kind kind) { add(kind, coder_.channels, coder_.channels); }
  void add_blocks(int count) {
    for (int i = 0; i < count; ++i) add(TinyLayer::Kind::Block);
  }
  /// A layer without tensors has a number too.
  void skip() { ++next_; }
  std::vector<TinyLayer> take() { return std::move(layers_); }

 private:
  const TinyVaeSizes::Coder& coder_;
  int next_;
  std::vector<TinyLayer> layers_;
};

}  // namespace

std::string convolution_of(const TinyLayer& block, int number) {
  return fmt::format("{}.conv.{}", block.name, 2 * number);
}

std::vector<TinyLayer> decoder_layers(const TinyVaeSizes& sizes) {
  using Kind = TinyLayer::Kind;
  const TinyVaeSizes::Coder& coder = sizes.decoder;
  Numbered layers(coder);
  layers.add(Kind::Conv, sizes.latent_channels, coder.channels);
  layers.skip();  // its rectifier
  for (std::size_t level = 0; level < coder.blocks.size(); ++level) {
    if (level > 0) {
      layers.skip();  // the enlargement
      layers.add(Kind::Enlarge);
    }
    layers.add_blocks(coder.blocks[level]);
  }
  layers.add(Kind::Conv, coder.channels, kImageChannels);
  return layers.take();
}

std::vector<TinyLayer> encoder_layers(const TinyVaeSizes& sizes) {
  using Kind = TinyLayer::Kind;
  const TinyVaeSizes::Coder& coder = sizes.encoder;
  Numbered layers(coder);
  layers.add(Kind::Conv, kImageChannels, coder.channels);
  for (std::size_t level = 0; level < coder.blocks.size(); ++level) {
    if (level > 0) layers.add(Kind::Halve);
    layers.add_blocks(coder.blocks[level]);
  }
  layers.add(Kind::Conv, coder.channels, sizes.latent_channels);
  return layers.take();
}

}  // namespace mgpu
