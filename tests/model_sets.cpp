#include "tests/model_sets.h"

#include "tests/drawn_weights.h"
#include "tests/testing.h"

namespace mgpu::test {

Paths::operator ModelPaths() const {
  ModelPaths out{.checkpoint = checkpoint, .vae = vae};
  for (const auto& [key, path] : {std::pair("clip_l", clip_l), {"clip_g", clip_g}, {"t5xxl", t5xxl}})
    if (!path.empty()) out.encoders[key] = path;
  for (const auto& [key, path] : {std::pair("clip", clip_tokenizer), {"t5xxl", t5xxl_tokenizer}})
    if (!path.empty()) out.tokenizers[key] = path;
  return out;
}

std::unique_ptr<PromptEncoder> load_prompt_encoder(const TextRecipe& recipe, std::size_t index, const Weights& weights,
                                                   const std::string& tokenizer, const TextualInversions& inversions,
                                                   std::vector<EncoderPiece> pieces) {
  const EncoderUse& use = recipe.encoders[index];
  return use.encoder->load(use, recipe.breaks, weights, tokenizer, inversions, std::move(pieces));
}

std::unique_ptr<DiffusionShard> load_shard(const ModelSet& models, const HeldBlocks& held, at::ScalarType dtype,
                                           at::Device device) {
  const Part& part = models.diffusion;
  return diffusion_model(part).load(part, weights_of(part, dtype, device), held, {});
}

ModelSet flux_set(const std::string& kind) {
  return flux_set_of(golden("flux_" + kind + ".safetensors"));
}

ModelSet flux_set_of(const std::string& checkpoint) {
  return open_models(test::Paths{.checkpoint = checkpoint,
                                 .clip_l = golden("picture_clip_l.safetensors"),
                                 .t5xxl = golden("picture_t5xxl.safetensors"),
                                 .vae = golden("vae_flux.safetensors"),
                                 .clip_tokenizer = golden("picture_merges.txt"),
                                 .t5xxl_tokenizer = golden("picture_spiece.model")});
}

ModelSet deeper_flux_set(const Folder& folder, int doubles, int singles) {
  const auto tensors = deeper_flux(golden("flux_dev.safetensors"), doubles, singles);
  return flux_set_of(folder.write("flux.safetensors", safetensors(tensors)));
}

std::string sd_vae(const Folder& folder) {
  return folder.write("sd_vae.safetensors", safetensors(drawn_model("unet_picture_parts.json", "vae")));
}

ModelSet unet_set(const Folder& folder) {
  return open_models(test::Paths{.checkpoint = folder.write("sd1.safetensors", safetensors(drawn_unet("sd1"))),
                                 .clip_l = golden("picture_clip_l.safetensors"),
                                 .vae = sd_vae(folder),
                                 .clip_tokenizer = golden("picture_merges.txt")});
}

}  // namespace mgpu::test
