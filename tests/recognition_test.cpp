#include <doctest/doctest.h>

#include "core/error.h"
#include "core/model_set.h"
#include "core/text/clip_model.h"
#include "core/text/clip_sizes.h"
#include "core/text/t5_model.h"
#include "tests/drawn_weights.h"
#include "tests/family_files.h"
#include "tests/model_sets.h"

// What a file is, told from its layout, its depth and its types.

using namespace mgpu;
using namespace mgpu::test;

namespace {

const std::string kLayers = "text_model.encoder.layers.";

std::string write(const std::string& name, const Entries& entries) {
  return folder().write(name, safetensors(entries));
}

/// Clip with its projection, as CLIP-G's files have it.
Entries clip_g(int layers) {
  return clip("", 64, 77, layers) + Entries{{"text_projection.weight", DType::F16, {64, 64}}};
}

/// A set of one of the small UNets with these encoders.
ModelSet unet_set_of(const std::string& unet, const Entries& l, const Entries& g = {}) {
  test::Paths paths{.checkpoint = write("unet.safetensors", drawn_unet(unet)), .vae = sd_vae(folder())};
  if (!l.empty()) paths.clip_l = write("l.safetensors", l);
  if (!g.empty()) paths.clip_g = write("g.safetensors", g);
  return open_models(paths);
}

std::string fault_of_set(const std::string& unet, const Entries& l, const Entries& g = {}) {
  return fault([&] { unet_set_of(unet, l, g); });
}

std::string missing(const std::string& file_name, const std::string& tensor, const std::string& family,
                    const std::string& key) {
  return file_name + ": tensor \"" + tensor + "\" is missing | " + family +
         " reads it: name the whole encoder's file under \"encoders." + key + "\"";
}

}  // namespace

TEST_SUITE_BEGIN("recognition");

TEST_CASE("CLIP is told by its depth, in either layout") {
  struct Kind {
    int layers;
    const Role& role;
    int depth;
  };
  for (const Kind& kind : {Kind{11, kClipL.role(), 12}, Kind{12, kClipL.role(), 12}, Kind{23, kClipH.role(), 24},
                           Kind{24, kClipH.role(), 24}, Kind{31, kClipG.role(), 32}, Kind{32, kClipG.role(), 32}}) {
    CAPTURE(kind.layers);
    for (const Entries& entries : {clip("", 64, 77, kind.layers), open_clip("", 64, kind.layers)}) {
      const std::vector<Part> parts = recognise(file(entries));
      REQUIRE(parts.size() == 1);
      CHECK((parts[0].row->role == &kind.role));
      CHECK(parts[0].as<ClipSizes>().layers == kind.layers);
      CHECK(parts[0].as<ClipSizes>().depth == kind.depth);
    }
  }
  // A small model is as deep as its file.
  CHECK(find_part(file(clip("", 64, 77, 2)), kClipL.role()).as<ClipSizes>().depth == 2);
  // A file of a published width is that model, however many layers it holds.
  CHECK(clip_depth(10, 768) == 12);
  CHECK(clip_depth(11, 1024) == 24);
  CHECK(clip_depth(40, 1280) == 32);
}

TEST_CASE("encoders under other programs' names") {
  for (const char* root : {"", "text_encoders.clip_l.", "clip_l.", "cond_stage_model.", "conditioner.embedders.0.",
                           "text_encoder.", "cond_stage_model.clip_l."}) {
    for (const char* inner : {"", "transformer.", "model."}) {
      const std::string prefix = std::string(root) + inner;
      CHECK(find_part(file(clip(prefix)), kClipL.role()).prefix == prefix);
    }
  }
  for (const char* prefix : {"text_encoders.clip_g.transformer.", "clip_g.", "text_encoder_2.",
                             "conditioner.embedders.1.model.", "conditioner.embedders.0.model."}) {
    CHECK(find_part(file(clip(prefix, 64, 77, 32)), kClipG.role()).prefix == prefix);
    CHECK(find_part(file(open_clip(prefix, 64, 32)), kClipG.role()).prefix == prefix);
  }
  for (const char* prefix : {"text_encoders.clip_h.transformer.", "cond_stage_model.model.", "text_encoder."})
    CHECK(find_part(file(clip(prefix, 64, 77, 23)), kClipH.role()).prefix == prefix);
  for (const char* prefix : {"", "transformer.", "text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.",
                             "t5xxl.transformer.", "text_encoder_2.", "text_encoder_3."})
    CHECK(find_part(file(t5(prefix)), kT5xxl.role()).prefix == prefix);
  for (const char* prefix : {"", "model.diffusion_model.", "diffusion_model.", "model.", "transformer.", "net."})
    CHECK(find_part(file(flux({.prefix = prefix})), kDiffusionRole).prefix == prefix);
}

TEST_CASE("a file may leave out the layers that its family does not read") {
  // SD 2 reads CLIP-H's last layer but one.
  const ModelSet sd2 = unet_set_of("sd2", clip("", 64, 77, 23));
  CHECK(sd2.encoder("clip_l").as<ClipSizes>().layers == 23);
  CHECK_NOTHROW(check_clip_layers(sd2, 0));
  CHECK_NOTHROW(check_clip_layers(sd2, 2));
  CHECK(fault([&] { check_clip_layers(sd2, 1); }) ==
        missing("l.safetensors", kLayers + "23.layer_norm1.weight", "sd2", "clip_l"));
  CHECK(
      fault([&] { check_clip_layers(sd2, 25); }) ==
      "l.safetensors: the CLIP encoder has 24 layers, and layer -25 was asked for | a clip_skip that passes the first "
      "layer cannot be rendered");

  // SDXL reads CLIP-L's last layer but one, without the final norm, and CLIP-G to the end.
  const Entries pruned = without(clip("", 128, 77, 11), "text_model.final_layer_norm.");
  const ModelSet sdxl = unet_set_of("sdxl", pruned, clip_g(32));
  CHECK_FALSE(sdxl.encoder("clip_l").as<ClipSizes>().final_norm);
  CHECK_NOTHROW(check_clip_layers(sdxl, 0));
  CHECK(fault_of_set("sdxl", pruned, clip_g(31)) ==
        missing("g.safetensors", kLayers + "31.layer_norm1.weight", "sdxl", "clip_g"));
  CHECK(fault_of_set("sdxl", pruned, without(clip_g(32), "text_model.final_layer_norm.")) ==
        missing("g.safetensors", "text_model.final_layer_norm.weight", "sdxl", "clip_g"));
  CHECK(fault_of_set("refiner", {}, clip("", 64, 77, 32)) ==
        missing("g.safetensors", "text_projection.weight", "sdxl-refiner", "clip_g"));

  // SD 1 reads the last layer, unless clip_skip says otherwise.
  const ModelSet sd1 = unet_set_of("sd1", clip("", 128, 77, 11));
  CHECK_NOTHROW(check_clip_layers(sd1, 2));
  CHECK(fault([&] { check_clip_layers(sd1, 0); }) ==
        missing("l.safetensors", kLayers + "11.layer_norm1.weight", "sd1", "clip_l"));
  CHECK(fault_of_set("sd1", without(clip("", 128, 77, 12), "text_model.final_layer_norm.")) ==
        missing("l.safetensors", "text_model.final_layer_norm.weight", "sd1", "clip_l"));
}

TEST_CASE("widths and sizes that do not belong together") {
  const auto positions = [](int count) { return fault_of_set("sd1", clip("", 128, count, 2)); };
  CHECK(positions(77) == "");
  CHECK(positions(64) == "l.safetensors: has 64 positions for tokens, and prompts take 77");
  Entries g = clip("", 64, 77, 32) + Entries{{"text_projection.weight", DType::F16, {32, 64}}};
  CHECK(fault_of_set("refiner", {}, g) ==
        "g.safetensors: does not belong to unet.safetensors: its pooled output has width 32, and that model takes 64 | "
        "name the encoder that the model was released with");
  g.back().shape = {64, 32};
  CHECK(fault_of_set("refiner", {}, g) ==
        "g.safetensors: tensor \"text_projection.weight\" has shape [64, 32], but the model's other tensors ask for "
        "[64, 64]");
}

TEST_CASE("an autoencoder of another factor") {
  // One level less: half as many pixels a side.
  Entries half = vae();
  std::erase_if(half, [](const Entry& entry) {
    return entry.name.starts_with("decoder.up.3.") || entry.name.starts_with("encoder.down.3.") ||
           entry.name.starts_with("encoder.down.2.downsample.");
  });
  const auto said = [&](const Entries& autoencoder) {
    return fault([&] {
      open_models(test::Paths{.checkpoint = write("flux.safetensors", flux()),
                              .clip_l = write("clip.safetensors", clip()),
                              .t5xxl = write("t5.safetensors", t5()),
                              .vae = write("ae.safetensors", autoencoder)});
    });
  };
  CHECK(said(vae()) == "");
  CHECK(said(half) ==
        "ae.safetensors: does not belong to flux.safetensors: it makes 4x4 pixels of a latent value, and that model is "
        "made for 8x8 | name the autoencoder that the model was released with");
}

TEST_CASE("an adapter's tensors beside a whole model are left over, alone they are an adapter") {
  const Entries lora{{"lora_te_x.lora_down.weight", DType::F16, {1}}, {"conv_first.weight", DType::F16, {1}}};
  CHECK(find_part(file(flux() + lora), kDiffusionRole).row->name == "flux1-dev");
  CHECK(left_over(file(flux() + lora)).size() == 2);
  CHECK(fault_of(lora, kDiffusionRole) == "m.safetensors: is a LoRA, which is not supported yet");
  // What shares a part's names says why it cannot be read.
  CHECK(fault_of(without(flux(), "final_layer.") + Entries{{"controlnet_blocks.0.weight", DType::F16, {1}}},
                 kDiffusionRole) == "m.safetensors: is a Flux.1 ControlNet, which is not supported yet");
  Entries four_bits = flux();
  for (Entry& entry : four_bits)
    if (entry.name == "img_in.weight") entry.dtype = DType::U8;
  CHECK(fault_of(four_bits + Entries{{"img_in.weight_scale_2", DType::F32, {}}}, kDiffusionRole) ==
        "m.safetensors: is a file of weights quantised to NVFP4, which is not supported yet | use the model's bf16 or "
        "fp8 release");
}

TEST_CASE("a type that we do not know refuses a file where something needs the tensor") {
  Entries entries = flux() + Entries{{"notes", DType::Other, {7}}};
  CHECK(find_part(file(entries), kDiffusionRole).row->name == "flux1-dev");
  for (Entry& entry : entries)
    if (entry.name == "single_blocks.2.linear2.weight") entry.dtype = DType::Other;
  CHECK(
      fault_of(entries, kDiffusionRole) ==
      "m.safetensors: tensor \"single_blocks.2.linear2.weight\" has type another type: quantised weights of this type "
      "are not supported yet");
}

TEST_CASE("quantisations are refused from the header") {
  const auto said = [](const std::string& description, const Entries& more = {}, const std::string& metadata = {}) {
    Entries entries = flux() + more;
    if (!description.empty())
      entries.push_back({"single_blocks.1.linear1.comfy_quant",
                         DType::U8,
                         {static_cast<std::int64_t>(description.size())},
                         description});
    const std::string path = folder().write("m.safetensors", safetensors(entries, metadata));
    return fault([&] { find_part(TensorFile::open(path), kDiffusionRole); });
  };
  const std::string tensor = "m.safetensors: tensor \"single_blocks.1.linear1.";
  const std::string hint = " | use the model's fp8 or bf16 release";
  CHECK(said(R"({"format": "float8_e4m3fn"})") == "");
  CHECK(said(R"({"format": "mxfp8"})") ==
        tensor + "weight\" is quantised as \"mxfp8\", which is not supported yet" + hint);
  CHECK(said("{}") == tensor + "comfy_quant\" is not a quantisation's description");
  const std::int64_t rows = TensorFile::open(folder().write("rows.safetensors", safetensors(flux())))
                                ->find("single_blocks.1.linear1.weight")
                                ->shape.front();
  CHECK(said("", {{"single_blocks.1.linear1.weight_scale", DType::F32, {rows, 1}}}) == "");
  CHECK(said("", {{"single_blocks.1.linear1.weight_scale", DType::F32, {rows}}}) == "");
  CHECK(said("", {{"single_blocks.1.linear1.weight_scale", DType::F32, {128, 1}}}) ==
        tensor +
            fmt::format("weight_scale\" has shape [128, 1]: one scale per weight or per row ({}) is supported", rows));
  CHECK(said("", {{"single_blocks.1.linear1.scale_weight", DType::U8, {}}}) ==
        tensor + "scale_weight\" has type U8: a scale of this type is not supported yet");
  CHECK(said("", {{"single_blocks.1.linear1.pre_quant_scale", DType::F32, {128}}}) ==
        tensor +
            "weight\" has a scale for its input (\"single_blocks.1.linear1.pre_quant_scale\"), which is not supported "
            "yet" +
            hint);
  // The same descriptions in the header's metadata.
  const auto in_metadata = [&](const std::string& text) {
    return said("", {}, R"({"_quantization_metadata":")" + text + "\"}");
  };
  const std::string layer = R"({\"layers\":{\"single_blocks.1.linear1\":{\"format\":\")";
  CHECK(in_metadata(layer + R"(float8_e5m2\"}}})") == "");
  CHECK(in_metadata(layer + R"(int8_tensorwise\"}}})") ==
        tensor + "weight\" is quantised as \"int8_tensorwise\", which is not supported yet" + hint);
  CHECK(in_metadata("[]") ==
        "m.safetensors: its metadata \"_quantization_metadata\" is not a quantisation's description");
  CHECK(in_metadata(R"({\"layers\":{\"another\":{\"format\":\"nvfp4\"}}})") == "");
  const std::string no_description =
      "m.safetensors: its metadata \"_quantization_metadata\" is not a quantisation's description";
  for (const char* text : {"", "{", "{}", R"({\"layers\":4})", R"({\"layers\":{\"single_blocks.1.linear1\":null}})",
                           R"({\"layers\":{\"single_blocks.1.linear1\":{\"format\":4}}})"})
    CHECK(in_metadata(text) == no_description);
  // Both describe a layer: both must be known.
  const std::string fp8 = R"({"_quantization_metadata":")" + layer + R"(float8_e4m3fn\"}}}"})";
  CHECK(said(R"({"format": "float8_e4m3fn"})", {}, fp8) == "");
  CHECK(said(R"({"format": "nvfp4"})", {}, fp8) ==
        tensor + "weight\" is quantised as \"nvfp4\", which is not supported yet" + hint);
  // The format is named, not the type that it is stored in; without a description there is only the type.
  Entries four_bits = flux();
  for (Entry& entry : four_bits)
    if (entry.name == "single_blocks.1.linear1.weight") entry.dtype = DType::U8;
  const auto said_of = [&](const std::string& metadata) {
    const std::string path = folder().write("m.safetensors", safetensors(four_bits, metadata));
    return fault([&] { find_part(TensorFile::open(path), kDiffusionRole); });
  };
  CHECK(said_of(R"({"_quantization_metadata":")" + layer + R"(nvfp4\"}}}"})") ==
        tensor + "weight\" is quantised as \"nvfp4\", which is not supported yet" + hint);
  CHECK(said_of("") == tensor + "weight\" has type U8: quantised weights of this type are not supported yet");
}

TEST_SUITE_END();
