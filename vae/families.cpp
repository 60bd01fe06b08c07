// What tells the families apart is public knowledge of their layouts; the same names decide in ComfyUI
// (comfy/model_detection.py, comfy/sd.py).

#include "vae/families.h"

#include "core/family_tables.h"
#include "core/signs.h"
#include "vae/vae_models.h"

namespace mgpu {

using namespace signs;

namespace {

constexpr std::string_view kVaeIn = "decoder.conv_in.weight";
constexpr std::string_view kTinyIn = "1.weight";
constexpr std::string_view kTinyBlock = "3.conv.0.weight";
constexpr std::string_view kComfyTinyIn = "taesd_decoder.1.weight";
constexpr std::string_view kDiffusersTinyIn = "decoder.layers.0.weight";

constexpr std::string_view kUseVae =
    "Flux.1 takes ae.safetensors, Stable Diffusion an autoencoder of 4 latent channels with the original tensor names";

/// TAESD, TAESDXL (4 channels), TAEF1 and TAESD3 (16): which model's latents they know, no name or shape tells. The
/// decoder alone as it was released, both coders as ComfyUI joins them, and both as diffusers names them.
std::vector<FamilyRow> tiny_autoencoders() {
  const Role* role = &kVaeRole;
  std::vector<FamilyRow> rows{{role,
                               "a tiny autoencoder's encoder alone",
                               {has(kTinyBlock), dim("0.weight", 1, 3)},
                               "name its decoder's file, or one that holds both"}};
  const auto add = [&](std::string_view what, std::int64_t channels) {
    rows.push_back({role, what, {has(kComfyTinyIn), dim(kComfyTinyIn, 1, channels)}, "", &kTinyVae});
    rows.push_back({role, what, {has(kTinyBlock), dim(kTinyIn, 1, channels)}, "", &kTinyVae});
    rows.push_back({role, what, {has(kDiffusersTinyIn), dim(kDiffusersTinyIn, 1, channels)}, "", &kTinyVae});
  };
  add("a tiny autoencoder of 4 latent channels", 4);
  add("a tiny autoencoder of 16 latent channels", 16);
  for (const std::string_view mark : {kComfyTinyIn, kTinyBlock, kDiffusersTinyIn})
    rows.push_back({role, "a tiny autoencoder of another kind", {has(mark)}, kUseVae});
  return rows;
}

std::vector<FamilyRow> autoencoders() {
  const Role* role = &kVaeRole;
  const auto with = [](std::int64_t channels) {
    return std::vector<Sign>{has(kVaeIn), dim(kVaeIn, 1, channels), dim(kVaeIn, 3, 3),
                             lacks("decoder.conv_in.weight_v"), has("decoder.mid.block_1.norm1.weight")};
  };
  return {
      {role,
       "an autoencoder with diffusers' tensor names",
       {has("decoder.up_blocks.0.resnets.0.norm1.weight")},
       kUseVae},
      {role, "a Flux.2 autoencoder", {has(kVaeIn), has("bn.running_mean")}, kUseVae},
      {role, "an autoencoder of 4 latent channels", with(4), "", &kVae},
      {role, "an autoencoder of 16 latent channels", with(16), "", &kVae},
      {role, "a HunyuanVideo autoencoder", {has("decoder.conv_in.conv.weight")}, kUseVae},
      {role, "a Wan or Qwen-Image autoencoder", {has("decoder.middle.0.residual.0.gamma")}, kUseVae},
      {role, "an autoencoder of another kind", {has(kVaeIn)}, kUseVae},
  };
}

}  // namespace

std::vector<FamilyRow> autoencoder_families() {
  return joined({autoencoders(), tiny_autoencoders()});
}

}  // namespace mgpu
