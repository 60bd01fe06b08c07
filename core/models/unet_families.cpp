// What tells the families apart is public knowledge of their layouts; the same names decide in ComfyUI
// (comfy/model_detection.py, comfy/sd.py).

#include "core/family_tables.h"
#include "core/models/unet_model.h"
#include "core/signs.h"
#include "core/text/recipe.h"

namespace mgpu {

using namespace signs;

namespace {

constexpr std::string_view kUnetIn = "input_blocks.0.0.weight";
constexpr std::string_view kUnetOut = "out.2.weight";
constexpr std::string_view kUnetProjection = "input_blocks.1.1.proj_in.weight";
constexpr std::string_view kUnetVector = "label_emb.0.0.weight";

constexpr LatentFormat kStableDiffusionLatent{.channels = 4, .scale = 0.18215, .rgb = &kStableDiffusionRgb};
constexpr LatentFormat kSdxlLatent{.channels = 4, .scale = 0.13025, .rgb = &kSdxlRgb};

/// Stable Diffusion's: 1000 levels.
Training unet_training(Prediction prediction, const LatentFormat& latent) {
  return {prediction, 1000, 0, latent, 8};
}

/// A UNet that we render with: as it is, and its inpainting cousin, which takes a mask and a masked latent too.
std::vector<FamilyRow> unet_pair(std::string_view what, std::string_view inpaint_what, const std::vector<Sign>& signs,
                                 std::string_view name, std::string_view inpaint_name, const LatentFormat& latent,
                                 const TextRecipe& text, int size_values) {
  const auto row = [&](std::string_view row_what, std::int64_t channels, std::string_view row_name) {
    const std::vector<Sign> all =
        std::vector<Sign>{has(kUnetIn), dim(kUnetIn, 1, channels), dim(kUnetOut, 0, 4)} + signs;
    return FamilyRow{
        &kDiffusionRole, row_what,   all, "", &kUNetModel, row_name, unet_training(Prediction::Epsilon, latent),
        &text,           size_values};
  };
  return {row(what, 4, name), row(inpaint_what, 9, inpaint_name)};
}

/// The same model, trained to predict v. `signs` tell it apart, so it must be tried first.
FamilyRow v_predicting(FamilyRow row, std::string_view what, const std::vector<Sign>& signs, std::string_view name) {
  row.what = what;
  row.signs = row.signs + signs;
  row.name = name;
  row.training->prediction = Prediction::V;
  return row;
}

std::vector<FamilyRow> refused_unets() {
  const Role* role = &kDiffusionRole;
  return {
      {role,
       "a Stable Video Diffusion checkpoint",
       {has(kUnetIn), has("input_blocks.1.1.time_stack.0.attn1.to_q.weight")}},
      {role,
       "a Playground v2.5 checkpoint",
       {has(kUnetIn), in_file("edm_mean"), in_file("edm_std")},
       "use Playground v2 or SDXL"},
      {role, "a CosXL checkpoint", {has(kUnetIn), in_file("edm_vpred.sigma_max")}, "use SDXL"},
      {role, "a Stable Diffusion 2.1 unCLIP checkpoint", {has(kUnetIn), has(kUnetVector), has(kUnetProjection)}},
      {role,
       "a UNet with diffusers' tensor names",
       {has("conv_in.weight"), has("time_embedding.linear_1.weight"), has("down_blocks.0.resnets.0.norm1.weight")},
       kUseSingleFile},
  };
}

/// RunState apart by what the UNets are made of, not by their widths: four levels or three, text from the first level
/// on or not, projections as convolutions or as matrices.
std::vector<FamilyRow> unets() {
  constexpr std::string_view kFourthLevel = "input_blocks.9.0.op.weight";
  std::vector<FamilyRow> rows = refused_unets();
  const auto add = [&](const std::vector<FamilyRow>& more) { rows.insert(rows.end(), more.begin(), more.end()); };

  const std::vector<FamilyRow> sd1 = unet_pair(
      "a Stable Diffusion 1.x checkpoint", "a Stable Diffusion 1.x inpainting checkpoint",
      {lacks(kUnetVector), dim(kUnetProjection, 3, 1)}, "sd1", "sd1-inpaint", kStableDiffusionLatent, kSd1Text, 0);
  add(sd1);
  const std::vector<FamilyRow> sd2 =
      unet_pair("a Stable Diffusion 2.x checkpoint", "a Stable Diffusion 2.x inpainting checkpoint",
                {lacks(kUnetVector), has(kUnetProjection)}, "sd2", "sd2-inpaint", kStableDiffusionLatent, kSd2Text, 0);
  // No name or shape tells v-prediction from epsilon. ComfyUI looks at how far the values of this small tensor spread
  // (comfy/supported_models.py, SD20), and so do we: the one place where a weight's data decides.
  add({v_predicting(sd2.front(), "a Stable Diffusion 2.x checkpoint (v-prediction)",
                    {spread("output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.09)}, "sd2-v")});
  add(sd2);
  FamilyRow refiner = unet_pair("an SDXL refiner", "", {has(kUnetVector), has(kFourthLevel)}, "sdxl-refiner", "",
                                kSdxlLatent, kSdxlRefinerText, 5)
                          .front();
  refiner.aesthetic = true;
  add({refiner});
  std::vector<FamilyRow> sdxl =
      unet_pair("an SDXL checkpoint", "an SDXL inpainting checkpoint", {has(kUnetVector), lacks(kFourthLevel)}, "sdxl",
                "sdxl-inpaint", kSdxlLatent, kSdxlText, 6);
  sdxl.back().signs.push_back(not_in_file("v_pred"));  // none is known: not to be taken for an epsilon model
  const FamilyRow sdxl_v =
      v_predicting(sdxl.front(), "an SDXL checkpoint (v-prediction)", {in_file("v_pred")}, "sdxl-v");
  FamilyRow sdxl_zsnr =
      v_predicting(sdxl_v, "an SDXL checkpoint (v-prediction, zero terminal SNR)", {in_file("ztsnr")}, "sdxl-v-zsnr");
  sdxl_zsnr.training->zero_terminal = true;
  add({sdxl_zsnr, sdxl_v});
  add(sdxl);
  add({{&kDiffusionRole, "a Stable Diffusion UNet of another kind", {has(kUnetIn)}}});
  return rows;
}

}  // namespace

std::vector<FamilyRow> unet_families() {
  return unets();
}

}  // namespace mgpu
