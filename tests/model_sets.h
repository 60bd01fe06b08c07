#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model_set.h"
#include "core/models/diffusion_model.h"
#include "core/text/text_encoder.h"
#include "tests/tensor_writer.h"

namespace mgpu::test {

/// ModelPaths of today's encoders, each by its name. Converts to them; what is empty is left out.
struct Paths {
  std::string checkpoint = {}, clip_l = {}, clip_g = {}, t5xxl = {}, vae = {}, clip_tokenizer = {},
              t5xxl_tokenizer = {};

  operator ModelPaths() const;
};

/// Loads the recipe's encoder of that number.
std::unique_ptr<PromptEncoder> load_prompt_encoder(const TextRecipe& recipe, std::size_t index, const Weights& weights,
                                                   const std::string& tokenizer, const TextualInversions& inversions,
                                                   std::vector<EncoderPiece> pieces);

/// Loads the held blocks of the set's diffusion model.
std::unique_ptr<DiffusionShard> load_shard(const ModelSet& models, const HeldBlocks& held, at::ScalarType dtype,
                                           at::Device device);

/// A tiny Flux from the goldens: "dev" or "schnell".
ModelSet flux_set(const std::string& kind = "dev");
/// The same from a checkpoint of ours.
ModelSet flux_set_of(const std::string& checkpoint);
/// Flux.1 dev's with so many double and single blocks.
ModelSet deeper_flux_set(const Folder& folder, int doubles, int singles);

/// Writes a small autoencoder of Stable Diffusion's 4 channels and factor 8, its values drawn. Returns its path.
std::string sd_vae(const Folder& folder);

/// A tiny SD 1.x, its UNet drawn.
ModelSet unet_set(const Folder& folder);

}  // namespace mgpu::test
