#include <doctest/doctest.h>

#include "core/error.h"
#include "core/model_set.h"
#include "core/text/clip_model.h"
#include "core/text/t5_model.h"
#include "tests/drawn_weights.h"
#include "tests/family_files.h"
#include "tests/model_sets.h"
#include "tests/testing.h"

// Tensors that a part lacks, and tensors that no part reads.

using namespace mgpu;
using namespace mgpu::test;

namespace {

constexpr const char* kUnet = "model.diffusion_model.";

/// The tensors of a golden file, all zeros.
Entries entries_of(const std::string& golden_name) {
  Entries out;
  const auto file = TensorFile::open(golden(golden_name));
  for (const auto& [name, info] : file->tensors()) out.push_back({name, info.dtype, info.shape});
  return out;
}

/// What is said of a file without the tensors whose names begin so.
std::string fault_without(const Entries& entries, const std::string& begin, const Role& role) {
  const Entries rest = without(entries, begin);
  REQUIRE(rest.size() < entries.size());
  return fault_of(rest, role);
}

std::string missing(const std::string& tensor, const std::string& there = {}) {
  return "m.safetensors: tensor \"" + tensor + "\" is missing" + (there.empty() ? "" : " (" + there + " is there)");
}

Entry stray(const std::string& name, DType dtype = DType::F16) {
  return {name, dtype, {2, 2}};
}

std::vector<std::string> left_over_in(const Entries& entries) {
  return left_over(file(entries));
}

}  // namespace

TEST_SUITE_BEGIN("left_over");

TEST_CASE("a numbered block that lacks is missing, wherever it lies") {
  const Entries dev = flux();
  CHECK(fault_without(dev, "single_blocks.1.", kDiffusionRole) ==
        missing("single_blocks.1.linear1.weight", "single_blocks.2"));
  CHECK(fault_without(dev, "single_blocks.0.", kDiffusionRole) ==
        missing("single_blocks.0.linear1.weight", "single_blocks.1"));
  CHECK(fault_without(dev, "double_blocks.0.", kDiffusionRole) ==
        missing("double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.1"));
  CHECK(fault_without(dev, "double_blocks.1.txt_mlp.", kDiffusionRole) == missing("double_blocks.1.txt_mlp.0.weight"));

  const std::string layers = "text_model.encoder.layers.";
  CHECK(fault_without(clip("", 64, 77, 4), layers + "2.", kClipL.role()) ==
        missing(layers + "2.layer_norm1.weight", layers + "3"));
  CHECK(fault_without(clip("", 64, 77, 4), layers + "0.", kClipL.role()) ==
        missing(layers + "0.mlp.fc1.weight", layers + "1"));
  CHECK(fault_without(clip("", 64, 77, 24), layers + "22.", kClipH.role()) ==
        missing(layers + "22.layer_norm1.weight", layers + "23"));
  CHECK(fault_without(open_clip("", 64, 32), "transformer.resblocks.7.", kClipG.role()) ==
        missing("transformer.resblocks.7.ln_1.weight", "transformer.resblocks.8"));
  CHECK(fault_without(t5(), "encoder.block.1.", kT5xxl.role()) ==
        missing("encoder.block.1.layer.0.SelfAttention.q.weight", "encoder.block.2"));
  CHECK(fault_without(t5(), "encoder.block.0.", kT5xxl.role()) ==
        missing("encoder.block.0.layer.0.SelfAttention.k.weight", "encoder.block.1"));

  CHECK(fault_without(vae(), "decoder.up.1.", kVaeRole) ==
        missing("decoder.up.1.block.0.conv1.weight", "decoder.up.2"));
  CHECK(fault_without(vae(), "decoder.up.0.block.1.", kVaeRole) ==
        missing("decoder.up.0.block.1.norm1.weight", "decoder.up.0.block.2"));
  CHECK(fault_without(vae(), "encoder.down.0.", kVaeRole) ==
        missing("encoder.down.0.block.0.norm1.weight", "encoder.down.1"));
  CHECK(fault_without(vae(), "encoder.conv_in.", kVaeRole) == missing("encoder.conv_in.weight"));
}

TEST_CASE("the same of a UNet and of a tiny autoencoder") {
  const Entries sdxl = drawn_unet("sdxl", kUnet);
  const std::string down = std::string(kUnet) + "input_blocks.", up = std::string(kUnet) + "output_blocks.",
                    middle = std::string(kUnet) + "middle_block.";
  CHECK(fault_without(sdxl, down + "4.", kDiffusionRole) == missing(down + "4.0.in_layers.2.weight", down + "5"));
  CHECK(fault_without(sdxl, up + "2.", kDiffusionRole) == missing(up + "2.0.in_layers.2.weight", up + "3"));
  CHECK(fault_without(sdxl, middle + "0.", kDiffusionRole) == missing(middle + "0.in_layers.2.weight", middle + "1"));
  CHECK(fault_without(sdxl, middle + "2.", kDiffusionRole) == missing(middle + "2.in_layers.2.weight"));
  CHECK(fault_without(sdxl, down + "5.1.transformer_blocks.", kDiffusionRole) ==
        missing(down + "5.1.transformer_blocks.0.norm1.weight"));
  const Entries sd1 = drawn_unet("sd1", kUnet);
  CHECK(fault_without(sd1, down + "1.", kDiffusionRole) == missing(down + "1.1.proj_in.weight", down + "2"));
  const Entries tiny = entries_of("tiny_vae_flux.safetensors");
  CHECK(fault_without(tiny, "taesd_decoder.3.conv.4.", kVaeRole) == missing("taesd_decoder.3.conv.4.weight"));
  CHECK(fault_without(tiny, "taesd_decoder.3.", kVaeRole) ==
        missing("taesd_decoder.3.conv.0.weight", "taesd_decoder.4"));
}

TEST_CASE("a UNet's block without its transformer, and an autoencoder's level without its last block") {
  const std::string down = std::string(kUnet) + "input_blocks.", up = std::string(kUnet) + "output_blocks.",
                    middle = std::string(kUnet) + "middle_block.";
  const auto lacks = [](const Entries& entries, const std::string& begin, const std::string& tensor) {
    CHECK(fault_without(entries, begin, kDiffusionRole).starts_with(missing(begin + tensor)));
  };
  for (const char* model : {"sd1", "sd2"}) {
    CAPTURE(model);
    const Entries sd = drawn_unet(model, kUnet);
    lacks(sd, middle + "1.", "norm.weight");
    for (const char* block : {"2.1.", "4.1.", "8.1."}) lacks(sd, down + block, "norm.weight");
    for (const char* block : {"3.1.", "7.1.", "11.1."}) lacks(sd, up + block, "norm.weight");
  }
  const Entries sdxl = drawn_unet("sdxl", kUnet);
  lacks(sdxl, down + "7.1.transformer_blocks.1.", "norm1.weight");
  lacks(sdxl, up + "1.1.transformer_blocks.1.", "norm1.weight");
  lacks(drawn_unet("refiner", kUnet), up + "4.1.", "norm.weight");
  CHECK(fault_of(drawn_unet("koala", kUnet), kDiffusionRole).empty());
  CHECK(fault_without(vae("", 16, false), "decoder.up.0.block.2.", kVaeRole) ==
        missing("decoder.up.0.block.2.norm1.weight"));
}

TEST_CASE("a tensor that a part is known by") {
  CHECK(fault_without(flux(), "img_in.weight", kDiffusionRole) == missing("img_in.weight"));
  CHECK(fault_without(vae(), "decoder.conv_in.weight", kVaeRole) == missing("decoder.conv_in.weight"));
  // Half of the guidance's layers, and half of the quant convolutions.
  CHECK(fault_without(flux(), "guidance_in.in_layer.weight", kDiffusionRole) == missing("guidance_in.in_layer.weight"));
  CHECK(fault_of(vae() + Entries{{"quant_conv.weight", DType::F32, {32, 32, 1, 1}}}, kVaeRole) ==
        missing("post_quant_conv.weight"));
}

TEST_CASE("a part reads what it names, and the rest of the file is left over") {
  const Entries whole = flux({.prefix = kUnet}) + clip("text_encoders.clip_l.transformer.") + vae("vae.");
  CHECK(left_over_in(whole).empty());
  const Entries more{stray("lora_te_x.lora_down.weight"),
                     stray(std::string(kUnet) + "double_blocks.0.extra.weight"),
                     stray("vae.decoder.up.3.block.7.conv1.weight"),
                     stray("text_encoders.clip_l.transformer.text_model.head.weight"),
                     stray("control_model.input_hint_block.0.weight"),
                     stray("img_in.scale_weight")};
  const std::vector<std::string> names = left_over_in(whole + more);
  REQUIRE(names.size() == more.size());
  CHECK(names.front() == "control_model.input_hint_block.0.weight");

  const Part part = find_part(file(whole + more), kDiffusionRole);
  CHECK(part.reads->size() == flux().size());
  CHECK_FALSE(part.reads->contains(std::string(kUnet) + "double_blocks.0.extra.weight"));
  CHECK(loaded_bytes(part, at::kBFloat16) == loaded_bytes(find_part(file(flux()), kDiffusionRole), at::kBFloat16));
}

TEST_CASE("a weight's scales belong to it") {
  const Entries scaled = t5() + Entries{{"encoder.block.0.layer.1.DenseReluDense.wo.scale_weight", DType::F32, {}},
                                        {"encoder.block.0.layer.1.DenseReluDense.wo.input_scale", DType::F32, {}},
                                        {"scaled_fp8", DType::F8_E4M3, {0}}};
  CHECK(left_over_in(scaled).empty());
  CHECK(left_over_in(scaled + Entries{{"x.scale_weight", DType::F32, {}}}) ==
        std::vector<std::string>{"x.scale_weight"});
}

TEST_CASE("what files hold beside a model is not worth a note") {
  CHECK(left_over_in(drawn_unet("sd1", kUnet) + clip("cond_stage_model.transformer.", 128) +
                     vae("first_stage_model.", 4) +
                     Entries{stray("betas"), stray("alphas_cumprod_prev"), stray("sqrt_recipm1_alphas_cumprod"),
                             stray("model_ema.diffusion_modelout2weight"), stray("model_ema.num_updates", DType::I32),
                             stray("cond_stage_model.transformer.text_model.embeddings.position_ids", DType::I64),
                             stray("first_stage_model.loss.logvar"), stray("cond_stage_model.logit_scale"),
                             stray("denoiser.sigmas"), stray("posterior_variance")})
            .empty());
  // The whole of CLIP, and the whole of T5.
  CHECK(left_over_in(clip() + Entries{stray("vision_model.encoder.layers.0.mlp.fc1.weight"), stray("logit_scale"),
                                      stray("visual_projection.weight"), stray("text_projection.weight")})
            .empty());
  CHECK(left_over_in(t5() + Entries{stray("encoder.embed_tokens.weight"), stray("lm_head.weight"),
                                    stray("decoder.block.0.layer.0.SelfAttention.q.weight"),
                                    stray("decoder.final_layer_norm.weight"), stray("spiece_model", DType::U8)})
            .empty());
}

TEST_CASE("a set notes what is left over, once per file") {
  const std::string checkpoint = folder().write(
      "whole.safetensors",
      safetensors(flux() + Entries{stray("a.lora_down.weight"), stray("b"), stray("c"), stray("d"), stray("e")}));
  const std::string encoder =
      folder().write("clip.safetensors", safetensors(clip() + Entries{stray("x", DType::Other)}));
  const ModelSet set = open_models(test::Paths{.checkpoint = checkpoint,
                                               .clip_l = encoder,
                                               .t5xxl = folder().write("t5.safetensors", safetensors(t5())),
                                               .vae = folder().write("ae.safetensors", safetensors(vae()))});
  REQUIRE(set.notes.size() == 2);
  CHECK(set.notes[0] == checkpoint +
                            ": 5 of its tensors are left over, no part of a model reads them: \"a.lora_down.weight\", "
                            "\"b\", \"c\" and 2 more");
  CHECK(set.notes[1] == encoder + ": 1 of its tensors is left over, no part of a model reads it: \"x\"");
}

TEST_SUITE_END();
