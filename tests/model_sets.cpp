#include "tests/model_sets.h"

#include "tests/drawn_weights.h"
#include "tests/testing.h"

namespace mgpu::test {

ModelSet flux_set(const std::string& kind) {
  return flux_set_of(golden("flux_" + kind + ".safetensors"));
}

ModelSet flux_set_of(const std::string& checkpoint) {
  return open_models({.checkpoint = checkpoint,
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
  return open_models({.checkpoint = folder.write("sd1.safetensors", safetensors(drawn_unet("sd1"))),
                      .clip_l = golden("picture_clip_l.safetensors"),
                      .vae = sd_vae(folder),
                      .clip_tokenizer = golden("picture_merges.txt")});
}

}  // namespace mgpu::test
