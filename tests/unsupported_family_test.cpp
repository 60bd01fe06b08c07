#include <doctest/doctest.h>

#include "core/text/clip_model.h"
#include "core/text/t5_model.h"
#include "core/text/t5_sizes.h"
#include "tests/family_files.h"

using namespace mgpu;
using namespace mgpu::test;

TEST_SUITE_BEGIN("unsupported_family");

TEST_CASE("what is known but not supported is named") {
  const auto named = [](const std::string& what, const std::vector<std::pair<std::string, Shape>>& tensors) {
    std::vector<Entry> entries;
    for (const auto& [name, shape] : tensors) entries.push_back({name, DType::U8, shape});
    const std::string said = fault_of(entries, kDiffusionRole);
    CHECK_MESSAGE(said.substr(0, said.find(" | ")) == "m.safetensors: is " + what + ", which is not supported yet",
                  what);
  };
  const std::string ldm = "model.diffusion_model.";
  const auto unet = [&](const std::string& more, int channels = 4) {
    return std::vector<std::pair<std::string, Shape>>{
        {ldm + "input_blocks.0.0.weight", {8, channels, 3, 3}}, {ldm + "out.2.weight", {4, 8, 3, 3}}, {more, {1, 1}}};
  };
  const auto in_file = [&](const std::string& first, const std::string& second) {
    auto tensors = unet(ldm + "label_emb.0.0.weight");
    tensors.push_back({first, {}}), tensors.push_back({second, {}});
    return tensors;
  };
  named("a Stable Video Diffusion checkpoint", unet(ldm + "input_blocks.1.1.time_stack.0.attn1.to_q.weight"));
  named("a Playground v2.5 checkpoint", in_file("edm_mean", "edm_std"));
  named("a CosXL checkpoint", in_file("edm_vpred.sigma_max", "edm_vpred.sigma_min"));
  named("a Stable Diffusion 2.1 unCLIP checkpoint",
        in_file(ldm + "input_blocks.1.1.proj_in.weight", ldm + "input_blocks.1.1.norm.weight"));
  named("a Stable Diffusion UNet of another kind", unet("x"));
  named("a Stable Diffusion UNet of another kind", unet(ldm + "input_blocks.1.1.proj_in.weight", 8));  // pix2pix
  named("a UNet with diffusers' tensor names", {{"conv_in.weight", {1}},
                                                {"time_embedding.linear_1.weight", {1}},
                                                {"down_blocks.0.resnets.0.norm1.weight", {1}}});
  named("a Stable Diffusion 3 checkpoint", {{ldm + "joint_blocks.0.context_block.attn.qkv.weight", {1}}});
  named("a Stable Diffusion 3.5 checkpoint",
        {{"joint_blocks.0.context_block.attn.qkv.weight", {1}}, {"joint_blocks.0.x_block.attn.ln_q.weight", {1}}});

  const std::string mark = "double_blocks.0.img_attn.norm.key_norm.scale";
  const auto flux_with = [&](const std::string& name, int in) {
    return std::vector<std::pair<std::string, Shape>>{{mark, {128}}, {"img_in.weight", {128, in}}, {name, {1}}};
  };
  named("a Flux.2 checkpoint", flux_with("double_stream_modulation_img.lin.weight", 128));
  named("a Chroma checkpoint", flux_with("distilled_guidance_layer.norms.0.scale", 64));
  named("a HunyuanVideo checkpoint", flux_with("txt_in.individual_token_refiner.blocks.0.norm1.weight", 64));
  named("a Flux.1 Fill checkpoint", flux_with("vector_in.in_layer.weight", 384));
  named("a Flux.1 Canny or Depth checkpoint", flux_with("vector_in.in_layer.weight", 128));
  named("a Flux.1 variant of another input width", flux_with("vector_in.in_layer.weight", 68));
  named("a Flux variant without pooled text (LongCat-Image)", flux_with("txt_in.weight", 64));
  named("a Flux.1 transformer with diffusers' tensor names",
        {{"single_transformer_blocks.0.norm.linear.weight", {1}}, {"x_embedder.weight", {1}}});

  const std::vector<std::pair<std::string, Shape>> refiner{{"noise_refiner.0.attention.k_norm.weight", {1}}};
  auto z_image = refiner, lumina = refiner;
  z_image.push_back({"cap_embedder.1.weight", {3840, 1}});
  lumina.push_back({"cap_embedder.1.weight", {2304, 1}});
  named("a Z-Image checkpoint", z_image);
  named("a Lumina 2 checkpoint", lumina);
  named("a Qwen-Image checkpoint", {{"txt_norm.weight", {1}}, {"transformer_blocks.0.img_mod.1.weight", {1}}});
  named("a Wan checkpoint", {{ldm + "head.modulation", {1}}});
  named("an AuraFlow checkpoint", {{"double_layers.0.attn.w1q.weight", {1}}});
  named("a PixArt checkpoint", {{"t_block.1.weight", {1}}});

  named("a LoRA", {{"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", {1}}});
  named("a LoRA", {{"transformer.single_transformer_blocks.0.norm.linear.lora_A.weight", {1}}});
  named("a Flux.1 ControlNet", {{mark, {128}}, {"img_in.weight", {128, 64}}, {"controlnet_blocks.0.weight", {1}}});
  named("a file of weights quantised to 4 bits by bitsandbytes (NF4)",
        flux_with("a.quant_state.bitsandbytes__nf4", 64));
  named("a file of weights quantised to NVFP4", flux_with("img_in.weight_scale_2", 64));
  named("a file of weights quantised by Nunchaku (SVDQuant)", {{"transformer_blocks.0.qkv_proj.wscales", {1}}});

  CHECK(fault_of(clip("", 64, 248), kClipL.role()) ==
        "m.safetensors: is a Long-CLIP text encoder, which is not supported yet");
  CHECK(fault_of({{"model.layers.0.post_attention_layernorm.weight", DType::U8, {1}}}, kT5xxl.role()) ==
        "m.safetensors: is a Llama text encoder, which is not supported yet");
  CHECK(fault_of(t5() +
                     std::vector<Entry>{
                         {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight", DType::U8, {1}}},
                 kT5xxl.role()) ==
        "m.safetensors: is a UMT5 text encoder, which is not supported yet | Flux.1 takes T5 v1.1 XXL");
  CHECK(fault_of({{"decoder.up_blocks.0.resnets.0.norm1.weight", DType::U8, {1}},
                  {"decoder.conv_in.weight", DType::U8, {1, 16, 3, 3}}},
                 kVaeRole)
            .starts_with("m.safetensors: is an autoencoder with diffusers' tensor names, which is not supported yet | "
                         "Flux.1 takes"));
}

TEST_CASE("an unknown file says what was looked for") {
  CHECK(fault([] {
          recognise(file({{"something.weight", DType::U8, {1}}}));
        }) ==
        "m.safetensors: is of no family that mgpu-render knows | looked for "
        "double_blocks.0.img_attn.norm.key_norm.scale (a Flux.1 transformer), "
        "input_blocks.0.0.weight (a Stable Diffusion UNet), "
        "text_model.encoder.layers.0.mlp.fc1.weight (a CLIP text encoder), "
        "transformer.resblocks.0.mlp.c_fc.weight (a CLIP text encoder), "
        "encoder.block.0.layer.0.SelfAttention.k.weight (a T5 text encoder), decoder.conv_in.weight (an autoencoder), "
        "taesd_decoder.1.weight (an autoencoder), 3.conv.0.weight (an autoencoder), decoder.layers.0.weight (an "
        "autoencoder)");
  CHECK(fault([] { recognise(file(std::vector<Entry>{})); }).starts_with("m.safetensors: holds no tensors"));
}

TEST_CASE("recognise lists parts that are not supported, too") {
  const std::vector<Part> parts = recognise(
      file(std::vector<Entry>{{"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", DType::U8, {1}}} +
           t5("text_encoders.t5xxl.transformer.") + vae("first_stage_model.")));
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].row->what == "a Stable Diffusion 3 checkpoint");
  CHECK((parts[0].row->model == nullptr));
  CHECK_FALSE(parts[0].sizes.has_value());
  CHECK(parts[1].as<T5Sizes>().layers == 3);
}

TEST_SUITE_END();
