#pragma once

#include <ATen/core/Tensor.h>

#include <exception>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <tuple>

#include "cli/job/picture_list.h"
#include "cli/render/sampling.h"
#include "cli/render/vae_runner.h"
#include "shard/engine.h"

namespace mgpu {

/// What the runs of a job start from, encoded before anything is sampled: each prompt once, each init image once at
/// each size. The text encoders come and go first, then the autoencoder's encoder.
class EncodedInputs {
 public:
  EncodedInputs() = default;
  /// Encodes what these pictures need. `between` is called between the steps of the work and may throw to stop it.
  EncodedInputs(Engine& engine, VaeRunner& vae_runner, const TextualInversions& inversions,
                std::span<const Picture* const> pictures, const std::function<void()>& between);

  /// Brings what the diffusion model is told to the device where another engine's runs begin: a smaller placement may
  /// have moved them.
  void move_to(const DeviceId& device);

  /// The run that a picture belongs to. It points into the picture and into these encodings.
  Run run_of(const Picture& picture) const;
  /// The texts that the pictures' runs will be told, in order.
  std::vector<UpcomingConditioning> texts_of(std::span<const Picture* const> pictures, const Training& training) const;
  /// Tokens that the picture's prompt has become.
  std::int64_t text_tokens(const Picture& picture) const;

 private:
  /// An init image as it is encoded: its file, its mask's, and the picture's size.
  using InitKey = std::tuple<std::string, std::string, int, int>;
  struct InitImage {
    at::Tensor latent;              ///< [1, C, h, w] on the CPU
    at::Tensor channels;            ///< [1, 1 + C, h, w] on the CPU, for an inpainting model that is given a mask
    std::exception_ptr fault = {};  ///< why there is neither: the runs that start from it fail by that
  };
  static InitKey key_of(const ImageJob& image);

  void encode_prompts(Engine& engine, const TextualInversions& inversions, std::span<const Picture* const> pictures);
  void encode_init_images(Engine& engine, VaeRunner& vae_runner, std::span<const Picture* const> pictures,
                          const std::function<void()>& between);
  const Conditioning& conditioning_of(const std::string& prompt, const SamplerOptions& options) const;

  std::map<PromptText, Conditioning> conditionings_;
  std::map<InitKey, InitImage> init_images_;
  std::int64_t factor_ = 8;     ///< pixels a latent value, along each side
  bool inpaint_model_ = false;  ///< the diffusion model takes channels beside the latent
};

}  // namespace mgpu
