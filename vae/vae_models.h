#pragma once

#include "core/autoencoder_model.h"

namespace mgpu {

/// The convolutional autoencoder of latent diffusion (vae/autoencoder.h).
class VaeModel final : public AutoencoderModel {
 public:
  std::string_view kind() const override { return "an autoencoder"; }
  Sizes read(PartShapes& shapes) const override;
  BlockCounts blocks(const Sizes& sizes) const override;
  AutoencoderFacts facts(const Part& part) const override;
  ComponentNeed decoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override;
  ComponentNeed encoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override;
  double decode_time(const Part& part, const LargestPicture& picture) const override;
  std::unique_ptr<Decoders> decoders(const Part& part, std::size_t ranks, const LatentFormat& format) const override;
  std::unique_ptr<Encoders> encoders(const Part& part, std::size_t ranks, const LatentFormat& format) const override;
};

/// TAESD and its relatives (vae/tiny_autoencoder.h), on one device.
class TinyVaeModel final : public AutoencoderModel {
 public:
  std::string_view kind() const override { return "an autoencoder"; }
  Sizes read(PartShapes& shapes) const override;
  BlockCounts blocks(const Sizes& sizes) const override;
  AutoencoderFacts facts(const Part& part) const override;
  ComponentNeed decoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override;
  ComponentNeed encoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override;
  double decode_time(const Part&, const LargestPicture&) const override { return 0.0; }
  std::unique_ptr<Decoders> decoders(const Part& part, std::size_t ranks, const LatentFormat& format) const override;
  std::unique_ptr<Encoders> encoders(const Part& part, std::size_t ranks, const LatentFormat& format) const override;
};

extern const VaeModel kVae;
extern const TinyVaeModel kTinyVae;

}  // namespace mgpu
