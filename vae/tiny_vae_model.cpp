#include "core/error.h"
#include "vae/coders.h"
#include "vae/tiny_codec.h"
#include "vae/tiny_vae_needs.h"
#include "vae/tiny_vae_sizes.h"
#include "vae/vae_models.h"

namespace mgpu {
namespace {

class TinyDecoders final : public Decoders {
 public:
  TinyDecoders(TinyVaeSizes sizes, const LatentFormat& format) : sizes_(std::move(sizes)), format_(format) {}
  void load(std::size_t rank, const Weights& weights) override {
    MGPU_CHECK_EQ(rank, std::size_t{0});
    decoding_ = tiny_decoding(sizes_, weights, format_);
  }
  at::Tensor decode(const DecodeNeed&, const Team&, const at::Tensor& z) const override { return decoding_(z); }

 private:
  TinyVaeSizes sizes_;
  LatentFormat format_;
  Decoding decoding_;
};

class TinyEncoders final : public Encoders {
 public:
  TinyEncoders(TinyVaeSizes sizes, const LatentFormat& format) : sizes_(std::move(sizes)), format_(format) {}
  void load(std::size_t rank, const Weights& weights) override {
    MGPU_CHECK_EQ(rank, std::size_t{0});
    encoding_ = tiny_encoding(sizes_, weights, format_);
  }
  LatentDistribution encode(const DecodeNeed&, const Team&, const at::Tensor& image) const override {
    return encoding_(image);
  }

 private:
  TinyVaeSizes sizes_;
  LatentFormat format_;
  Encoding encoding_;
};

}  // namespace

const TinyVaeModel kTinyVae;

Sizes TinyVaeModel::read(PartShapes& shapes) const {
  return read_tiny_vae_sizes(shapes);
}

BlockCounts TinyVaeModel::blocks(const Sizes& sizes) const {
  return {{"level", static_cast<int>(std::any_cast<const TinyVaeSizes&>(sizes).decoder.blocks.size())}};
}

AutoencoderFacts TinyVaeModel::facts(const Part& part) const {
  const auto& vae = part.as<TinyVaeSizes>();
  return {vae.latent_channels, vae.factor(), static_cast<int>(vae.decoder.blocks.size()), !vae.encoder.blocks.empty(),
          /*tiny=*/true};
}

ComponentNeed TinyVaeModel::decoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const {
  return tiny_decoder_need(part, dtype, picture);
}

ComponentNeed TinyVaeModel::encoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const {
  return tiny_encoder_need(part, dtype, picture);
}

std::unique_ptr<Decoders> TinyVaeModel::decoders(const Part& part, std::size_t, const LatentFormat& format) const {
  return std::make_unique<TinyDecoders>(part.as<TinyVaeSizes>(), format);
}

std::unique_ptr<Encoders> TinyVaeModel::encoders(const Part& part, std::size_t, const LatentFormat& format) const {
  return std::make_unique<TinyEncoders>(part.as<TinyVaeSizes>(), format);
}

}  // namespace mgpu
