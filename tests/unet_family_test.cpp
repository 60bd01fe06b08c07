#include <doctest/doctest.h>

#include "core/error.h"
#include "core/model_set.h"
#include "core/models/unet_sizes.h"
#include "core/text/clip_model.h"
#include "core/text/clip_sizes.h"
#include "tests/drawn_weights.h"
#include "tests/family_files.h"
#include "tests/model_sets.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;
using mgpu::test::Entry;
using mgpu::test::Folder;

TEST_SUITE_BEGIN("unet_family");

namespace {

using Entries = std::vector<Entry>;

constexpr const char* kUnet = "model.diffusion_model.";

/// A tensor of nothing but zeros.
Entry zeros(const std::string& name, const std::vector<std::int64_t>& shape) {
  return {name, DType::F16, shape};
}

/// A UNet of tests/goldens/unet_models.json, as a single file names it or alone.
Entries unet(const std::string& model, const std::string& prefix = kUnet) {
  return test::drawn_unet(model, prefix);
}

Entries linear(const std::string& name, int out, int in) {
  return {zeros(name + ".weight", {out, in}), zeros(name + ".bias", {out})};
}

Entries norm(const std::string& name, int width) {
  return {zeros(name + ".weight", {width}), zeros(name + ".bias", {width})};
}

/// A text encoder in transformers' layout; no layer is wider than it must be.
Entries clip(const std::string& prefix, int width, int layers = 1) {
  const std::string model = prefix + "text_model.";
  Entries out{zeros(model + "embeddings.token_embedding.weight", {100, width}),
              zeros(model + "embeddings.position_embedding.weight", {77, width})};
  for (int i = 0; i < layers; ++i) {
    const std::string layer = fmt::format("{}encoder.layers.{}.", model, i);
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
      out = out + linear(layer + "self_attn." + name, width, width);
    out = out + norm(layer + "layer_norm1", width) + norm(layer + "layer_norm2", width) +
          linear(layer + "mlp.fc1", 8, width) + linear(layer + "mlp.fc2", width, 8);
  }
  return out + norm(model + "final_layer_norm", width);
}

/// CLIP-G, whose pooled output is projected.
Entries clip_g() {
  return clip("", 64, 32) + Entries{zeros("text_projection.weight", {64, 64})};
}

/// The same in OpenCLIP's.
Entries open_clip(const std::string& prefix, int width, int layers = 1) {
  Entries out{zeros(prefix + "token_embedding.weight", {100, width}),
              zeros(prefix + "positional_embedding", {77, width}), zeros(prefix + "text_projection", {width, width})};
  for (int i = 0; i < layers; ++i) {
    const std::string layer = fmt::format("{}transformer.resblocks.{}.", prefix, i);
    out = out + norm(layer + "ln_1", width) + norm(layer + "ln_2", width) +
          Entries{zeros(layer + "attn.in_proj_weight", {3 * width, width}),
                  zeros(layer + "attn.in_proj_bias", {3 * width})} +
          linear(layer + "attn.out_proj", width, width) + linear(layer + "mlp.c_fc", 8, width) +
          linear(layer + "mlp.c_proj", width, 8);
  }
  return out + norm(prefix + "ln_final", width);
}

const Folder& folder() {
  static const Folder shared;
  return shared;
}

std::string write(const std::string& name, const Entries& entries) {
  return folder().write(name, test::safetensors(entries));
}

Part diffusion(const Entries& entries) {
  return find_part(TensorFile::open(write("unet.safetensors", entries)), kDiffusionRole);
}

ModelSet open(const Entries& checkpoint, test::Paths paths = {}) {
  paths.checkpoint = write("model.safetensors", checkpoint);
  if (paths.vae.empty()) paths.vae = test::sd_vae(folder());
  return open_models(paths);
}

/// What open() says, less the folder, with its hint after " | "; "" when it is content.
std::string fault(const Entries& checkpoint, test::Paths paths = {}) {
  try {
    open(checkpoint, std::move(paths));
    return "";
  } catch (const Error& error) {
    std::string text = error.where().file + ": " + error.message() + " | " + error.hint();
    for (std::size_t at = 0; (at = text.find(folder().path(""), at)) != std::string::npos;)
      text.erase(at, folder().path("").size());
    return text;
  }
}

constexpr const char* kPrefixL = "conditioner.embedders.0.transformer.";
constexpr const char* kPrefixG = "conditioner.embedders.1.model.";

}  // namespace

TEST_CASE("what a family was trained with") {
  const Training sd1 = *diffusion(unet("sd1", "")).row->training;
  CHECK((sd1.prediction == Prediction::Epsilon));
  CHECK(sd1.timesteps == 1000);
  CHECK(sd1.latent.channels == 4);
  CHECK(sd1.latent.scale == 0.18215);
  CHECK(sd1.latent.shift == 0);
  CHECK(sd1.size_multiple == 8);
  CHECK(diffusion(unet("sd2")).row->training->latent.scale == 0.18215);
  for (const char* model : {"sdxl", "refiner"}) CHECK(diffusion(unet(model)).row->training->latent.scale == 0.13025);
}

TEST_CASE("v-prediction shows in SD 2's last transformer and in SDXL's marks") {
  Entries spread = unet("sd2");
  for (Entry& entry : spread) {
    if (entry.name != std::string(kUnet) + "output_blocks.11.1.transformer_blocks.0.norm1.bias") continue;
    std::vector<float> values(static_cast<std::size_t>(entry.shape[0]), 0.1F);
    for (std::size_t i = 0; i < values.size(); i += 2) values[i] = -0.1F;
    entry.data = test::bytes_of(values);
  }
  const Part v = diffusion(spread);
  CHECK(v.row->name == "sd2-v");
  CHECK((v.row->training->prediction == Prediction::V));
  CHECK(v.row->text == &kSd2Text);
  CHECK((diffusion(unet("sd2")).row->training->prediction == Prediction::Epsilon));

  const Part sdxl_v = diffusion(unet("sdxl") + Entries{zeros("v_pred", {0})});
  CHECK(sdxl_v.row->name == "sdxl-v");
  CHECK((sdxl_v.row->training->prediction == Prediction::V));
  CHECK_FALSE(sdxl_v.row->training->zero_terminal);
  const Part zsnr = diffusion(unet("sdxl") + Entries{zeros("v_pred", {0}), zeros("ztsnr", {0})});
  CHECK(zsnr.row->name == "sdxl-v-zsnr");
  CHECK(zsnr.row->training->zero_terminal);
  CHECK(zsnr.row->size_values == 6);
  CHECK(fault(unet("sdxl_inpaint") + Entries{zeros("v_pred", {0})}) ==
        "model.safetensors: is a Stable Diffusion UNet of another kind, which is not supported yet | ");
}

TEST_CASE("sizes, block by block") {
  const UNetSizes sd1 = diffusion(unet("sd1")).as<UNetSizes>();
  CHECK(sd1.channels_in == 4);
  CHECK(sd1.channels_out == 4);
  CHECK(sd1.model_channels == 32);
  CHECK(sd1.context == 128);
  CHECK(sd1.vector == 0);
  CHECK_FALSE(sd1.linear_projections);
  CHECK(sd1.heads(64) == 8);
  REQUIRE(sd1.down.size() == 12);
  CHECK(sd1.down[3].resamples);
  CHECK(sd1.down[4].in == 32);
  CHECK(sd1.down[4].out == 64);
  CHECK(sd1.down[4].depth == 1);
  CHECK(sd1.down[11].depth == 0);
  CHECK(sd1.depth_middle == 1);
  CHECK(sd1.up[2].resamples);
  CHECK_FALSE(sd1.up[11].resamples);
  CHECK(sd1.up[11].skip == 32);

  const UNetSizes refiner = diffusion(unet("refiner")).as<UNetSizes>();
  CHECK(refiner.vector == 64 + 5 * 256);
  CHECK(refiner.heads(128) == 2);
  CHECK(refiner.down[4].depth == 2);
  CHECK(diffusion(unet("sd1_inpaint")).as<UNetSizes>().channels_in == 9);
  CHECK(diffusion(unet("koala")).as<UNetSizes>().middle_residuals == 0);

  CHECK(summarise(diffusion(unet("sd1"))).blocks ==
        std::vector<std::pair<std::string, int>>{{"down", 12}, {"middle", 1}, {"up", 12}});
}

TEST_CASE("single-file checkpoints hold their encoders under the original names") {
  const ModelSet sd1 = open(unet("sd1") + clip("cond_stage_model.transformer.", 128));
  CHECK(sd1.encoder("clip_l").prefix == "cond_stage_model.transformer.");
  CHECK((sd1.encoder("clip_l").row->role == &kClipL.role()));
  CHECK(sd1.encoder("clip_l").as<ClipSizes>().layers_prefix == "text_model.encoder.layers.");
  CHECK_FALSE(sd1.has_encoder("clip_g"));
  CHECK_FALSE(sd1.has_encoder("t5xxl"));

  Entries early = unet("sd1");
  for (Entry entry : clip("", 128)) {
    entry.name.replace(0, std::string_view("text_model.").size(), "cond_stage_model.transformer.");
    early.push_back(entry);
  }
  const ModelSet early_sd1 = open(early);
  CHECK(early_sd1.encoder("clip_l").prefix == "cond_stage_model.transformer.");
  CHECK(early_sd1.encoder("clip_l").as<ClipSizes>().layers_prefix == "encoder.layers.");
  CHECK(early_sd1.encoder("clip_l").as<ClipSizes>().layers == 1);
  early.pop_back();
  CHECK(fault(early) ==
        "model.safetensors: tensor \"cond_stage_model.transformer.final_layer_norm.bias\" is missing | ");

  const ModelSet sd2 = open(unet("sd2") + open_clip("cond_stage_model.model.", 64, 2));
  CHECK((sd2.encoder("clip_l").row->role == &kClipH.role()));
  CHECK(sd2.encoder("clip_l").as<ClipSizes>().layers_prefix == "transformer.resblocks.");
  CHECK(sd2.encoder("clip_l").as<ClipSizes>().projection);
  CHECK(sd2.encoder("clip_l").as<ClipSizes>().layers == 2);
  CHECK(sd2.encoder("clip_l").as<ClipSizes>().mlp == 8);

  const ModelSet sdxl = open(unet("sdxl") + clip(kPrefixL, 128) + open_clip(kPrefixG, 64));
  CHECK(sdxl.encoder("clip_l").prefix == kPrefixL);
  CHECK(sdxl.encoder("clip_l").as<ClipSizes>().hidden == 128);
  CHECK(sdxl.encoder("clip_g").prefix == kPrefixG);
  CHECK(sdxl.encoder("clip_g").as<ClipSizes>().hidden == 64);

  const ModelSet refiner = open(unet("refiner") + open_clip("conditioner.embedders.0.model.", 64));
  CHECK_FALSE(refiner.has_encoder("clip_l"));
  CHECK(refiner.encoder("clip_g").prefix == "conditioner.embedders.0.model.");
  CHECK(refiner.training().size_multiple == 8);
}

TEST_CASE("an encoder's own file wins over the checkpoint's, and is known by its depth") {
  const std::string l = write("l.safetensors", clip("", 128, 12));
  const std::string g = write("g.safetensors", clip_g()), h = write("h.safetensors", clip("", 64, 24));
  const Entries whole = unet("sdxl") + clip(kPrefixL, 128) + open_clip(kPrefixG, 64);
  const ModelSet set = open(whole, {.clip_l = l, .clip_g = g});
  CHECK(set.encoder("clip_l").as<ClipSizes>().layers == 12);
  CHECK(set.encoder("clip_g").as<ClipSizes>().layers == 32);
  CHECK(set.encoder("clip_g").prefix.empty());
  CHECK(open(unet("sd2"), {.clip_l = h}).encoder("clip_l").as<ClipSizes>().layers == 24);
  const std::string layout = write("g.safetensors", open_clip("", 64, 32));
  CHECK(open(whole, {.clip_g = layout}).encoder("clip_g").as<ClipSizes>().layers_prefix == "transformer.resblocks.");

  CHECK(fault(unet("sdxl"), {.clip_l = l, .clip_g = l}) ==
        "l.safetensors: is a CLIP-L text encoder, not a CLIP-G text encoder | it belongs under \"encoders.clip_l\"");
  CHECK(fault(unet("sd1"), {.clip_l = h}) ==
        "h.safetensors: is a CLIP-H text encoder, not a CLIP-L text encoder | \"encoders.clip_l\" is a CLIP-L text "
        "encoder for this checkpoint");
}

TEST_CASE("what a set lacks or has no use for is named with its key") {
  CHECK(fault(unet("sd1")) ==
        "model.safetensors: does not hold a CLIP-L text encoder | name one under \"encoders.clip_l\"");
  CHECK(fault(unet("sd2")) ==
        "model.safetensors: does not hold a CLIP-H text encoder | name one under \"encoders.clip_l\"");
  CHECK(fault(unet("sdxl") + clip(kPrefixL, 128)) ==
        "model.safetensors: does not hold a CLIP-G text encoder | name one under \"encoders.clip_g\"");
  CHECK(fault(unet("refiner")) ==
        "model.safetensors: does not hold a CLIP-G text encoder | name one under \"encoders.clip_g\"");
  const std::string g = write("g.safetensors", clip_g());
  CHECK(fault(unet("sd1") + clip("cond_stage_model.transformer.", 128), {.clip_g = g}) ==
        "g.safetensors: is of no use to model.safetensors, which is a Stable Diffusion 1.x checkpoint | leave "
        "\"encoders.clip_g\" out");
}

TEST_CASE("encoders of other widths do not belong") {
  const std::string hint = " | name the encoder that the model was released with";
  CHECK(
      fault(unet("sd1") + clip("cond_stage_model.transformer.", 64)) ==
      "model.safetensors: does not belong to model.safetensors: its hidden states have width 64, and that model takes "
      "128" +
          hint);
  CHECK(
      fault(unet("sdxl") + clip(kPrefixL, 64) + open_clip(kPrefixG, 64)) ==
      "model.safetensors: does not belong to model.safetensors: with CLIP-L's beside them its hidden states have width "
      "128, and that model takes 192" +
          hint);
  CHECK(
      fault(unet("sdxl") + clip(kPrefixL, 64) + open_clip(kPrefixG, 128)) ==
      "model.safetensors: does not belong to model.safetensors: its pooled output has width 128, and that model takes "
      "64" +
          hint);
}

TEST_CASE("CLIP's merges belong to its encoders") {
  const std::string merges = golden("picture_merges.txt"), hint = "name the merges that the encoder was trained with";
  CHECK(fault(unet("sd1") + clip("cond_stage_model.transformer.", 128), {.clip_tokenizer = merges}) ==
        "model.safetensors: does not belong to " + merges + ": it knows 100 tokens, and those merges make 607 | " +
            hint + " under \"tokenizers.clip\"");
  Entries g = clip_g();
  for (Entry& entry : g)
    if (entry.name.ends_with("token_embedding.weight")) entry.shape[0] = 607;
  CHECK(fault(unet("refiner"), {.clip_g = write("g.safetensors", g), .clip_tokenizer = merges}).empty());
}

TEST_CASE("a UNet's tensors that are missing or do not fit are named") {
  const auto said = [](const std::string& name, const std::vector<std::int64_t>& shape) {
    Entries model = unet("sdxl", "");
    std::erase_if(model, [&](const Entry& entry) { return entry.name == name; });
    if (!shape.empty()) model.push_back(zeros(name, shape));
    return fault(model);
  };
  const std::string tensor = "model.safetensors: tensor ", asked = ", but the model's other tensors ask for ";
  CHECK(said("middle_block.2.out_layers.3.bias", {}) == tensor + "\"middle_block.2.out_layers.3.bias\" is missing | ");
  CHECK(said("output_blocks.2.2.conv.weight", {}) == tensor + "\"output_blocks.2.2.conv.weight\" is missing | ");
  CHECK(said("input_blocks.4.0.skip_connection.weight", {64, 32, 3, 3}) ==
        tensor + "\"input_blocks.4.0.skip_connection.weight\" has shape [64, 32, 3, 3]" + asked + "[64, 32, 1, 1] | ");
  CHECK(said("input_blocks.0.0.weight", {40, 4, 3, 3}) ==
        tensor + "\"input_blocks.0.0.weight\" has shape [40, 4, 3, 3], but 40 is not a multiple of 32 | ");
  CHECK(said("label_emb.0.2.weight", {128, 64}) ==
        tensor + "\"label_emb.0.2.weight\" has shape [128, 64]" + asked + "[128, 128] | ");
}

TEST_SUITE_END();
