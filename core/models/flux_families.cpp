// What tells the families apart is public knowledge of their layouts; the same names decide in ComfyUI
// (comfy/model_detection.py, comfy/sd.py).

#include "core/family_tables.h"
#include "core/models/flux_model.h"
#include "core/signs.h"
#include "core/text/recipe.h"

namespace mgpu {

using namespace signs;

namespace {

constexpr std::string_view kFluxMark = "double_blocks.0.img_attn.norm.key_norm.scale";

Training flux_training(int timesteps, double mu) {
  return {
      Prediction::Velocity, timesteps, mu, {.channels = 16, .scale = 0.3611, .shift = 0.1159, .rgb = &kFluxRgb}, 16};
}

std::vector<FamilyRow> flux_relatives() {
  const Role* role = &kDiffusionRole;
  return {
      {role, "a HunyuanVideo checkpoint", {has("txt_in.individual_token_refiner.blocks.0.norm1.weight")}},
      {role, "a Flux.2 checkpoint", {has("double_stream_modulation_img.lin.weight")}},
      {role, "a Flux.2 transformer with diffusers' tensor names", {has("double_stream_modulation_img.linear.weight")}},
      {role, "a Chroma Radiance checkpoint", {has("nerf_blocks.0.norm.scale")}},
      {role, "a Chroma Radiance checkpoint", {has("nerf_blocks.0.norm.weight")}},
      {role, "a Chroma checkpoint", {has("distilled_guidance_layer.norms.0.scale")}},
      {role, "a Chroma checkpoint", {has("distilled_guidance_layer.norms.0.weight")}},
      {role, "a Chroma checkpoint", {has("distilled_guidance_layer.0.norms.0.scale")}},
      {role, "an Ovis-Image checkpoint", {has("double_blocks.0.img_mlp.gate_proj.weight")}},
      {role, "a Flux.1 Fill checkpoint", {has(kFluxMark), dim("img_in.weight", 1, 384)}, "use Flux.1 dev or schnell"},
      {role,
       "a Flux.1 Canny or Depth checkpoint",
       {has(kFluxMark), dim("img_in.weight", 1, 128)},
       "use Flux.1 dev or schnell"},
      {role, "a Flux.1 variant of another input width", {has(kFluxMark), other_dim("img_in.weight", 1, 64)}},
      {role,
       "a Flux variant without pooled text (LongCat-Image)",
       {has(kFluxMark), has("img_in.weight"), lacks("vector_in.in_layer.weight")}},
  };
}

std::vector<FamilyRow> flux() {
  const Role* role = &kDiffusionRole;
  const auto with = [](Sign guidance) {
    return std::vector<Sign>{has(kFluxMark), has("img_in.weight"), has("single_blocks.0.linear1.weight"), guidance};
  };
  return {
      {role, "a Flux.1 dev transformer", with(has("guidance_in.in_layer.weight")), "", &kFluxModel, "flux1-dev",
       flux_training(10000, 1.15), &kFluxText},
      {role, "a Flux.1 schnell transformer", with(lacks("guidance_in.in_layer.weight")), "", &kFluxModel,
       "flux1-schnell", flux_training(1000, 0), &kFluxText},
  };
}

}  // namespace

std::vector<FamilyRow> flux_families() {
  return joined({flux_relatives(), flux()});
}

}  // namespace mgpu
