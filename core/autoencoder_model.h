#pragma once

#include <cstdint>
#include <memory>

#include "core/family.h"
#include "core/need.h"

namespace mgpu {

class Decoders;  // vae/coders.h
class Encoders;

/// What is asked of an autoencoder of any kind.
struct AutoencoderFacts {
  int latent_channels = 0;
  std::int64_t factor = 0;  ///< pixels a side that one latent value stands for
  int levels = 0;
  bool encoder = false;  ///< the file holds the encoder too
  /// It decodes any picture whole, on one device, in no time to speak of: previews are made with it.
  bool tiny = false;
};

/// An autoencoder's model text: all that shared code asks of it. The rows of its files point at it.
class AutoencoderModel : public PartModel {
 public:
  virtual AutoencoderFacts facts(const Part& part) const = 0;

  /// What decoding a job's largest picture asks of memory, in the decode phase: by each mode, in the order in which
  /// they are preferred.
  virtual ComponentNeed decoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const = 0;
  /// What encoding an init image of the largest picture's size asks, in the encode phase.
  virtual ComponentNeed encoder_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const = 0;
  /// Relative time of decoding a picture, comparable to ComponentNeed::time() of a diffusion model.
  virtual double decode_time(const Part& part, const LargestPicture& picture) const = 0;

  /// Decoders for so many devices, which are loaded one by one. `format` is that of the diffusion model's latents.
  virtual std::unique_ptr<Decoders> decoders(const Part& part, std::size_t ranks, const LatentFormat& format) const = 0;
  virtual std::unique_ptr<Encoders> encoders(const Part& part, std::size_t ranks, const LatentFormat& format) const = 0;
};

/// The model text of a part that is an autoencoder.
const AutoencoderModel& autoencoder(const Part& part);

}  // namespace mgpu
