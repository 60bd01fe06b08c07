#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "vae/coders.h"
#include "vae/slabs.h"
#include "vae/tiled.h"
#include "vae/vae_models.h"
#include "vae/vae_needs.h"
#include "vae/vae_sizes.h"

namespace mgpu {
namespace {

/// The coders of a team, each loaded by its own rank.
template <class Coder>
class Ranks {
 public:
  Ranks(VaeSizes sizes, std::size_t count) : sizes_(std::move(sizes)), loading_(count) {}

  void load(std::size_t rank, const Weights& weights) { loading_[rank].emplace(sizes_, weights); }
  /// All of them, once the last has been loaded.
  std::span<const Coder> all() const {
    if (loaded_.empty())
      for (std::optional<Coder>& coder : loading_) loaded_.push_back(std::move(coder.value()));
    return loaded_;
  }

 private:
  VaeSizes sizes_;
  mutable std::vector<std::optional<Coder>> loading_;
  mutable std::vector<Coder> loaded_;
};

class VaeDecoders final : public Decoders {
 public:
  VaeDecoders(const VaeSizes& sizes, std::size_t count) : ranks_(sizes, count) {}
  void load(std::size_t rank, const Weights& weights) override { ranks_.load(rank, weights); }
  at::Tensor decode(const DecodeNeed& mode, const Team& team, const at::Tensor& z) const override {
    if (mode.mode == DecodeMode::Tiled) return decode_in_tiles(ranks_.all(), team, z, mode.tiling);
    if (mode.mode == DecodeMode::Slabs) return decode_in_slabs(ranks_.all(), team, z, mode.slabs);
    return decode_in_bands(ranks_.all(), team, z);
  }

 private:
  Ranks<Decoder> ranks_;
};

class VaeEncoders final : public Encoders {
 public:
  VaeEncoders(const VaeSizes& sizes, std::size_t count) : ranks_(sizes, count) {}
  void load(std::size_t rank, const Weights& weights) override { ranks_.load(rank, weights); }
  LatentDistribution encode(const DecodeNeed& mode, const Team& team, const at::Tensor& image) const override {
    if (mode.mode == DecodeMode::Slabs) return encode_in_slabs(ranks_.all(), team, image, mode.slabs);
    return encode_in_bands(ranks_.all(), team, image);
  }

 private:
  Ranks<Encoder> ranks_;
};

}  // namespace

const VaeModel kVae;

Sizes VaeModel::read(PartShapes& shapes) const {
  return read_vae_sizes(shapes);
}

BlockCounts VaeModel::blocks(const Sizes& sizes) const {
  return {{"level", static_cast<int>(std::any_cast<const VaeSizes&>(sizes).channels.size())}};
}

AutoencoderFacts VaeModel::facts(const Part& part) const {
  const auto& vae = part.as<VaeSizes>();
  return {vae.latent_channels, vae.factor(), static_cast<int>(vae.channels.size()), vae.encoder};
}

ComponentNeed VaeModel::decoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const {
  return vae_decoder_need(part, dtype, picture);
}

ComponentNeed VaeModel::encoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const {
  return vae_encoder_need(part, dtype, picture);
}

double VaeModel::decode_time(const Part& part, const LargestPicture& picture) const {
  return vae_decode_time(part.as<VaeSizes>(), picture);
}

std::unique_ptr<Decoders> VaeModel::decoders(const Part& part, std::size_t ranks, const LatentFormat&) const {
  return std::make_unique<VaeDecoders>(part.as<VaeSizes>(), ranks);
}

std::unique_ptr<Encoders> VaeModel::encoders(const Part& part, std::size_t ranks, const LatentFormat&) const {
  return std::make_unique<VaeEncoders>(part.as<VaeSizes>(), ranks);
}

}  // namespace mgpu
