// The table of everything that a weight file can be. What tells the families apart is public knowledge of their
// layouts; the same names decide in ComfyUI (comfy/model_detection.py, comfy/sd.py).

#include "core/family.h"
#include "core/family_sizes.h"

namespace mgpu {
namespace {

Sign has(std::string_view name) {
  return {Sign::Test::Has, name, 0, 0};
}
Sign lacks(std::string_view name) {
  return {Sign::Test::Lacks, name, 0, 0};
}
Sign dim(std::string_view name, std::size_t axis, std::int64_t size) {
  return {Sign::Test::Dim, name, axis, size};
}
Sign other_dim(std::string_view name, std::size_t axis, std::int64_t size) {
  return {Sign::Test::OtherDim, name, axis, size};
}
Sign blocks(std::string_view level, std::int64_t least, std::int64_t most) {
  return {Sign::Test::Blocks, level, 0, least, 0.0, most};
}
Sign ends(std::string_view name) {
  return {Sign::Test::AnyEndsWith, name, 0, 0};
}

Sign in_file(std::string_view name) {
  return {Sign::Test::InFile, name, 0, 0};
}
Sign not_in_file(std::string_view name) {
  return {Sign::Test::NotInFile, name, 0, 0};
}
Sign spread(std::string_view name, double bound) {
  return {Sign::Test::Spread, name, 0, 0, bound};
}

constexpr std::string_view kFluxMark = "double_blocks.0.img_attn.norm.key_norm.scale";
constexpr std::string_view kT5Key = "encoder.block.0.layer.0.SelfAttention.k.weight";
constexpr std::string_view kVaeIn = "decoder.conv_in.weight";
constexpr std::string_view kTinyIn = "1.weight";
constexpr std::string_view kTinyBlock = "3.conv.0.weight";
constexpr std::string_view kComfyTinyIn = "taesd_decoder.1.weight";
constexpr std::string_view kDiffusersTinyIn = "decoder.layers.0.weight";
constexpr std::string_view kUnetIn = "input_blocks.0.0.weight";
constexpr std::string_view kUnetOut = "out.2.weight";
constexpr std::string_view kUnetProjection = "input_blocks.1.1.proj_in.weight";
constexpr std::string_view kUnetVector = "label_emb.0.0.weight";
constexpr std::string_view kCheckpointVector = "model.diffusion_model.label_emb.0.0.weight";
constexpr std::string_view kOpenClipLayer = "transformer.resblocks.0.mlp.c_fc.weight";

constexpr std::string_view kSingleFile = "use the original single-file release";
constexpr std::string_view kPlain = "use the model's bf16 or fp8 release";

Training flux_training(int levels, double mu) {
  return {Prediction::Velocity, levels, mu, {.channels = 16, .scale = 0.3611, .shift = 0.1159, .rgb = &kFluxRgb}, 16};
}

constexpr LatentFormat kStableDiffusionLatent{.channels = 4, .scale = 0.18215, .rgb = &kStableDiffusionRgb};
constexpr LatentFormat kSdxlLatent{.channels = 4, .scale = 0.13025, .rgb = &kSdxlRgb};

/// Stable Diffusion's: 1000 levels.
Training unet_training(Prediction prediction, const LatentFormat& latent) {
  return {prediction, 1000, 0, latent, 8};
}

/// A row whose tensors have a supported part's names beside their own.
FamilyRow explaining(FamilyRow row) {
  row.explains = true;
  return row;
}

std::vector<FamilyRow> adapters() {
  constexpr auto role = Role::Other;
  return {
      {role, "a LoRA", {ends(".lora_down.weight")}},
      {role, "a LoRA", {ends(".lora_A.weight")}},
      {role, "a LoRA", {ends(".lora.down.weight")}},
      {role, "a LoKr adapter", {ends(".lokr_w1")}},
      {role, "a LoHa adapter", {ends(".hada_w1_a")}},
      explaining({role, "a Flux.1 ControlNet", {has("controlnet_x_embedder.weight")}}),
      explaining({role, "a Flux.1 ControlNet", {has("controlnet_blocks.0.weight")}}),
      explaining({role, "a ControlNet", {has("input_hint_block.0.weight")}}),
      {role, "a ControlNet", {has("control_model.input_hint_block.0.weight")}},
      {role, "a ControlNet", {has("controlnet_cond_embedding.conv_in.weight")}},
      {role, "a Flux.1 Redux adapter", {has("redux_up.weight")}},
      {role, "a textual inversion embedding", {has("emb_params")}},
      {role, "an upscaler", {has("conv_first.weight")}},
      {role, "an upscaler", {has("model.1.sub.0.RDB1.conv1.0.weight")}},
  };
}

std::vector<FamilyRow> quantised() {
  const auto row = [](std::string_view what, std::string_view mark) {
    return explaining({Role::Other, what, {ends(mark)}, kPlain});
  };
  return {
      row("a file of weights quantised to 4 bits by bitsandbytes (NF4)", ".quant_state.bitsandbytes__nf4"),
      row("a file of weights quantised to 4 bits by bitsandbytes (FP4)", ".quant_state.bitsandbytes__fp4"),
      row("a file of weights quantised by Nunchaku (SVDQuant)", ".wscales"),
      row("a file of weights quantised to NVFP4", ".weight_scale_2"),
  };
}

std::vector<FamilyRow> flux_relatives() {
  constexpr auto role = Role::Diffusion;
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
  constexpr auto role = Role::Diffusion;
  const auto with = [](Sign guidance) {
    return std::vector<Sign>{has(kFluxMark), has("img_in.weight"), has("single_blocks.0.linear1.weight"), guidance};
  };
  return {
      {role, "a Flux.1 dev transformer", with(has("guidance_in.in_layer.weight")), "", read_flux_sizes, "flux1-dev",
       flux_training(10000, 1.15), &kFluxText},
      {role, "a Flux.1 schnell transformer", with(lacks("guidance_in.in_layer.weight")), "", read_flux_sizes,
       "flux1-schnell", flux_training(1000, 0), &kFluxText},
  };
}

std::vector<Sign> operator+(std::vector<Sign> signs, const std::vector<Sign>& more) {
  signs.insert(signs.end(), more.begin(), more.end());
  return signs;
}

/// A UNet that we render with: as it is, and its inpainting cousin, which takes a mask and a masked latent too.
std::vector<FamilyRow> unet_pair(std::string_view what, std::string_view inpaint_what, const std::vector<Sign>& signs,
                                 std::string_view name, std::string_view inpaint_name, const LatentFormat& latent,
                                 const TextRecipe& text, int size_values) {
  const auto row = [&](std::string_view row_what, std::int64_t channels, std::string_view row_name) {
    const std::vector<Sign> all =
        std::vector<Sign>{has(kUnetIn), dim(kUnetIn, 1, channels), dim(kUnetOut, 0, 4)} + signs;
    return FamilyRow{
        Role::Diffusion, row_what,   all, "", read_unet_sizes, row_name, unet_training(Prediction::Epsilon, latent),
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
  constexpr auto role = Role::Diffusion;
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
       kSingleFile},
  };
}

/// Told apart by what the UNets are made of, not by their widths: four levels or three, text from the first level on or
/// not, projections as convolutions or as matrices.
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
  add({{Role::Diffusion, "a Stable Diffusion UNet of another kind", {has(kUnetIn)}}});
  return rows;
}

std::vector<FamilyRow> transformers() {
  constexpr auto role = Role::Diffusion;
  return {
      {role,
       "a Flux.1 transformer with diffusers' tensor names",
       {has("single_transformer_blocks.0.norm.linear.weight"), has("x_embedder.weight")},
       kSingleFile},
      {role,
       "a Stable Diffusion 3 transformer with diffusers' tensor names",
       {has("transformer_blocks.0.norm1_context.linear.weight"), has("pos_embed.proj.weight")},
       kSingleFile},
      {role, "a Stable Diffusion 3.5 checkpoint", {has("joint_blocks.0.x_block.attn.ln_q.weight")}},
      {role, "a Stable Diffusion 3 checkpoint", {has("joint_blocks.0.context_block.attn.qkv.weight")}},
      {role, "a Stable Cascade checkpoint", {has("clf.1.weight")}},
      {role, "a Stable Audio checkpoint", {has("transformer.rotary_pos_emb.inv_freq")}},
      {role, "an AuraFlow checkpoint", {has("double_layers.0.attn.w1q.weight")}},
      {role, "a Hunyuan-DiT checkpoint", {has("mlp_t5.0.weight")}},
      {role, "a Mochi checkpoint", {has("t5_yproj.weight")}},
      {role,
       "a PixArt transformer with diffusers' tensor names",
       {has("adaln_single.emb.timestep_embedder.linear_1.bias"), has("pos_embed.proj.bias")},
       kSingleFile},
      {role, "an LTX-Video checkpoint", {has("adaln_single.emb.timestep_embedder.linear_1.bias")}},
      {role, "an ACE-Step checkpoint", {has("genre_embedder.weight")}},
      {role, "a PixArt checkpoint", {has("t_block.1.weight")}},
      {role, "a Cosmos checkpoint", {has("blocks.block0.blocks.0.block.attn.to_q.0.weight")}},
      {role, "a Cosmos-Predict2 checkpoint", {has("blocks.0.mlp.layer1.weight")}},
      {role,
       "a Z-Image checkpoint",
       {has("noise_refiner.0.attention.k_norm.weight"), dim("cap_embedder.1.weight", 0, 3840)}},
      {role, "a Lumina 2 checkpoint", {has("noise_refiner.0.attention.k_norm.weight"), has("cap_embedder.1.weight")}},
      {role, "a CogVideoX checkpoint", {has("blocks.0.norm1.linear.weight")}},
      {role, "a Wan checkpoint", {has("head.modulation")}},
      {role, "a HiDream checkpoint", {has("caption_projection.0.linear.weight")}},
      {role, "an OmniGen2 checkpoint", {has("time_caption_embed.timestep_embedder.linear_1.bias")}},
      {role, "a Qwen-Image checkpoint", {has("txt_norm.weight"), has("transformer_blocks.0.img_mod.1.weight")}},
  };
}

/// Told apart by depth, as ComfyUI does, whatever the layout: up to 22 layers are CLIP-L's, up to 30 H's, more are G's;
/// a file may leave out the last. Of OpenCLIP's layout there are small models too: those of 10 layers or less are H's,
/// or G's in a checkpoint whose UNet takes a vector (SDXL and its refiner).
std::vector<FamilyRow> clips() {
  constexpr std::string_view kL = "a CLIP-L text encoder", kG = "a CLIP-G text encoder", kH = "a CLIP-H text encoder";
  constexpr std::int64_t kMostL = 22, kMostH = 30, kMost = 1000, kSmall = 10;
  std::vector<FamilyRow> rows;
  struct Layout {
    std::string_view first, level, positions;
  };
  constexpr Layout kTransformers[] = {
      {"text_model.encoder.layers.0.mlp.fc1.weight", "text_model.encoder.layers.",
       "text_model.embeddings.position_embedding.weight"},
      // Early SD 1.x files leave the level "text_model" out.
      {"encoder.layers.0.mlp.fc1.weight", "encoder.layers.", "embeddings.position_embedding.weight"}};
  for (const Layout& layout : kTransformers) {
    const auto add = [&](Role role, std::string_view what, std::int64_t least, std::int64_t most) {
      rows.push_back({role,
                      what,
                      {has(layout.first), has(layout.positions), blocks(layout.level, least, most)},
                      "",
                      read_clip_sizes});
    };
    rows.push_back({Role::ClipL, "a Long-CLIP text encoder", {has(layout.first), dim(layout.positions, 0, 248)}});
    add(Role::ClipL, kL, 1, kMostL);
    add(Role::ClipH, kH, kMostL + 1, kMostH);
    add(Role::ClipG, kG, kMostH + 1, kMost);
  }
  const auto open_clip = [&](Role role, std::string_view what, std::int64_t least, std::int64_t most,
                             const std::vector<Sign>& more) {
    rows.push_back({role, what,
                    std::vector<Sign>{has(kOpenClipLayer), blocks("transformer.resblocks.", least, most)} + more, "",
                    read_open_clip_sizes});
  };
  open_clip(Role::ClipL, kL, kSmall + 1, kMostL, {});
  open_clip(Role::ClipH, kH, kMostL + 1, kMostH, {});
  open_clip(Role::ClipH, kH, 1, kSmall, {not_in_file(kCheckpointVector)});
  open_clip(Role::ClipG, kG, kMostH + 1, kMost, {});
  open_clip(Role::ClipG, kG, 1, kSmall, {in_file(kCheckpointVector)});
  return rows;
}

std::vector<FamilyRow> language_models() {
  constexpr auto role = Role::T5;
  return {
      {role,
       "a UMT5 text encoder",
       {has(kT5Key), has("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight")},
       "Flux.1 takes T5 v1.1 XXL"},
      {role,
       "a T5 v1.1 text encoder",
       {has(kT5Key), has("encoder.block.0.layer.1.DenseReluDense.wi_1.weight")},
       "",
       read_t5_sizes},
      {role, "a T5 v1.0 text encoder", {has(kT5Key)}, "Flux.1 takes T5 v1.1 XXL"},
      {role, "a Gemma text encoder", {has("model.layers.0.post_feedforward_layernorm.weight")}},
      {role, "a Qwen 3 text encoder", {has("model.layers.0.self_attn.q_norm.weight")}},
      {role, "a Qwen 2.5 text encoder", {has("model.layers.0.self_attn.k_proj.bias")}},
      {role, "a Llama text encoder", {has("model.layers.0.post_attention_layernorm.weight")}},
  };
}

constexpr std::string_view kUseVae =
    "Flux.1 takes ae.safetensors, Stable Diffusion an autoencoder of 4 latent channels with the original tensor names";

/// TAESD, TAESDXL (4 channels), TAEF1 and TAESD3 (16): which model's latents they know, no name or shape tells. The
/// decoder alone as it was released, both coders as ComfyUI joins them, and both as diffusers names them.
std::vector<FamilyRow> tiny_autoencoders() {
  constexpr auto role = Role::Vae;
  std::vector<FamilyRow> rows{{role,
                               "a tiny autoencoder's encoder alone",
                               {has(kTinyBlock), dim("0.weight", 1, 3)},
                               "name its decoder's file, or one that holds both"}};
  const auto add = [&](std::string_view what, std::int64_t channels) {
    rows.push_back({role, what, {has(kComfyTinyIn), dim(kComfyTinyIn, 1, channels)}, "", read_tiny_vae_sizes});
    rows.push_back({role, what, {has(kTinyBlock), dim(kTinyIn, 1, channels)}, "", read_tiny_vae_sizes});
    rows.push_back({role, what, {has(kDiffusersTinyIn), dim(kDiffusersTinyIn, 1, channels)}, "", read_tiny_vae_sizes});
  };
  add("a tiny autoencoder of 4 latent channels", 4);
  add("a tiny autoencoder of 16 latent channels", 16);
  for (const std::string_view mark : {kComfyTinyIn, kTinyBlock, kDiffusersTinyIn})
    rows.push_back({role, "a tiny autoencoder of another kind", {has(mark)}, kUseVae});
  return rows;
}

std::vector<FamilyRow> autoencoders() {
  constexpr auto role = Role::Vae;
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
      {role, "an autoencoder of 4 latent channels", with(4), "", read_vae_sizes},
      {role, "an autoencoder of 16 latent channels", with(16), "", read_vae_sizes},
      {role, "a HunyuanVideo autoencoder", {has("decoder.conv_in.conv.weight")}, kUseVae},
      {role, "a Wan or Qwen-Image autoencoder", {has("decoder.middle.0.residual.0.gamma")}, kUseVae},
      {role, "an autoencoder of another kind", {has(kVaeIn)}, kUseVae},
  };
}

}  // namespace

std::span<const FamilyRow> family_rows() {
  static const std::vector<FamilyRow> all = [] {
    std::vector<FamilyRow> rows;
    for (const auto& group : {adapters(), quantised(), flux_relatives(), flux(), transformers(), unets(), clips(),
                              language_models(), autoencoders(), tiny_autoencoders()})
      rows.insert(rows.end(), group.begin(), group.end());
    return rows;
  }();
  return all;
}

}  // namespace mgpu
