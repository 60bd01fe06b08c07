#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/model_set.h"
#include "core/models/flux_sizes.h"
#include "core/text/clip_model.h"
#include "core/text/clip_sizes.h"
#include "core/text/t5_model.h"
#include "core/text/t5_sizes.h"
#include "tests/family_files.h"
#include "tests/model_sets.h"
#include "vae/vae_sizes.h"

using namespace mgpu;
using namespace mgpu::test;

namespace {

std::vector<Entry> with_shape(std::vector<Entry> entries, const std::string& name, const Shape& shape) {
  for (Entry& entry : entries)
    if (entry.name == name) entry.shape = shape;
  return entries;
}

std::string write(const std::string& name, const std::vector<Entry>& entries) {
  return folder().write(name, safetensors(entries));
}

std::string fault_of_set(const test::Paths& paths) {
  return fault([&] { open_models(paths); });
}

}  // namespace

TEST_SUITE_BEGIN("family");

TEST_CASE("Flux.1 dev and schnell, bare or prefixed") {
  for (const char* prefix : {"", "model.diffusion_model."}) {
    const Part dev = find_part(file(flux({.prefix = prefix})), kDiffusionRole);
    CHECK(dev.row->name == "flux1-dev");
    CHECK(dev.prefix == prefix);
    CHECK(dev.as<FluxSizes>().hidden == 128);
    CHECK(dev.as<FluxSizes>().heads == 1);
    CHECK(dev.as<FluxSizes>().mlp == 512);
    CHECK(dev.as<FluxSizes>().depth == 2);
    CHECK(dev.as<FluxSizes>().depth_single == 3);
    CHECK(dev.as<FluxSizes>().context == 48);
    CHECK(dev.as<FluxSizes>().vector == 64);
    CHECK(dev.as<FluxSizes>().channels == 16);
    CHECK(dev.as<FluxSizes>().guidance);
    CHECK((dev.row->training->prediction == Prediction::Velocity));
    CHECK(dev.row->training->timesteps == 10000);
    CHECK(dev.row->training->mu == 1.15);
    CHECK(dev.row->training->size_multiple == 16);

    const Part schnell = find_part(file(flux({.prefix = prefix, .guidance = false})), kDiffusionRole);
    CHECK(schnell.row->name == "flux1-schnell");
    CHECK_FALSE(schnell.as<FluxSizes>().guidance);
    CHECK(schnell.row->training->timesteps == 1000);
    CHECK(schnell.row->training->mu == 0);
  }
}

TEST_CASE("encoders and autoencoder") {
  const ClipSizes clip_l = find_part(file(clip()), kClipL.role()).as<ClipSizes>();
  CHECK(clip_l.hidden == 64);
  CHECK(clip_l.heads == 1);
  CHECK(clip_l.mlp == 256);
  CHECK(clip_l.layers == 2);
  CHECK(clip_l.vocabulary == 100);
  CHECK(clip_l.positions == 77);
  CHECK_FALSE(clip_l.projection);

  for (const char* embedding : {"shared.weight", "encoder.embed_tokens.weight"}) {
    const T5Sizes sizes = find_part(file(t5("", 48, embedding)), kT5xxl.role()).as<T5Sizes>();
    CHECK(sizes.embedding == embedding);
    CHECK(sizes.hidden == 48);
    CHECK(sizes.heads == 2);
    CHECK(sizes.head_dim == 20);
    CHECK(sizes.mlp == 96);
    CHECK(sizes.layers == 3);
    CHECK(sizes.vocabulary == 200);
    CHECK(sizes.buckets == 32);
  }

  for (const bool encoder : {true, false}) {
    const VaeSizes sizes = find_part(file(vae("", 16, encoder)), kVaeRole).as<VaeSizes>();
    CHECK(sizes.channels == std::vector<int>{32, 64, 64, 64});
    CHECK(sizes.factor() == 8);
    CHECK(sizes.residual_blocks == 2);
    CHECK(sizes.latent_channels == 16);
    CHECK(sizes.encoder == encoder);
  }
}

TEST_CASE("an all-in-one checkpoint, under either spelling of its prefixes") {
  for (const char* vae_prefix : {"vae.", "first_stage_model."}) {
    const auto all = file(flux({.prefix = "model.diffusion_model."}) + clip("text_encoders.clip_l.transformer.") +
                          t5("text_encoders.t5xxl.transformer.") + vae(vae_prefix));
    const std::vector<Part> parts = recognise(all);
    REQUIRE(parts.size() == 4);
    CHECK(parts[0].row->name == "flux1-dev");
    CHECK(parts[1].prefix == "text_encoders.clip_l.transformer.");
    CHECK(parts[2].prefix == "text_encoders.t5xxl.transformer.");
    CHECK(parts[3].prefix == vae_prefix);
    CHECK(parts[3].as<VaeSizes>().latent_channels == 16);
    CHECK_NOTHROW(open_models(test::Paths{.checkpoint = all->path()}));
  }
}

TEST_CASE("a checkpoint's own parts") {
  const auto bare = file(flux());
  CHECK(fault([&] { find_own_part(bare, kVaeRole); }) ==
        "m.safetensors: does not hold an autoencoder | name one under \"vae\"");
  CHECK(fault([&] { find_own_part(bare, kT5xxl.role()); }) ==
        "m.safetensors: does not hold a T5 text encoder | name one under \"encoders.t5xxl\"");
  CHECK(fault([&] { find_own_part(bare, kClipL.role()); }) ==
        "m.safetensors: does not hold a CLIP-L text encoder | name one under \"encoders.clip_l\"");
}

TEST_CASE("a file in the wrong place") {
  CHECK(fault_of(t5(), kClipL.role()) ==
        "m.safetensors: is a T5 v1.1 text encoder, not a CLIP-L text encoder | it belongs under \"encoders.t5xxl\"");
  CHECK(fault_of(clip(), kT5xxl.role()) ==
        "m.safetensors: is a CLIP-L text encoder, not a T5 text encoder | it belongs under \"encoders.clip_l\"");
  CHECK(fault_of(vae(), kDiffusionRole) ==
        "m.safetensors: is an autoencoder of 16 latent channels, not a diffusion model | it belongs under \"vae\"");
  CHECK(fault_of(flux(), kVaeRole) ==
        "m.safetensors: is a Flux.1 dev transformer, not an autoencoder | it belongs under \"checkpoint\"");
}

TEST_CASE("encoders that do not belong") {
  const auto set = [](const std::vector<Entry>& c, const std::vector<Entry>& t, int latent = 16) {
    return fault_of_set({.checkpoint = write("flux.safetensors", flux()),
                         .clip_l = write("clip.safetensors", c),
                         .t5xxl = write("t5.safetensors", t),
                         .vae = write("ae.safetensors", vae("", latent))});
  };
  CHECK(set(clip(), t5()) == "");
  CHECK(set(clip("", 128), t5()) ==
        "clip.safetensors: does not belong to flux.safetensors: its pooled output has width 128, and that model takes "
        "64 | name the "
        "encoder that the model was released with");
  CHECK(set(clip(), t5("", 32)) ==
        "t5.safetensors: does not belong to flux.safetensors: its hidden states have width 32, and that model takes 48 "
        "| name the "
        "encoder that the model was released with");
  CHECK(set(clip(), t5(), 4) ==
        "ae.safetensors: does not belong to flux.safetensors: its latent channels are 4, and that model takes 16 | "
        "name the autoencoder that the model was released with");
}

TEST_CASE("tensors that are missing or do not fit are named") {
  const std::string other = ", but the model's other tensors ask for ";
  CHECK(fault_of(without(flux(), "single_blocks.1.linear2.bias"), kDiffusionRole) ==
        "m.safetensors: tensor \"single_blocks.1.linear2.bias\" is missing");
  CHECK(fault_of(with_shape(flux(), "double_blocks.1.txt_mlp.0.weight", {512, 64}), kDiffusionRole) ==
        "m.safetensors: tensor \"double_blocks.1.txt_mlp.0.weight\" has shape [512, 64]" + other + "[512, 128]");
  CHECK(fault_of(with_shape(flux(), "img_in.weight", {100, 64}), kDiffusionRole) ==
        "m.safetensors: tensor \"img_in.weight\" has shape [100, 64], but 100 is not a multiple of 128");
  CHECK(fault_of(with_shape(flux(), "txt_in.weight", {128}), kDiffusionRole) ==
        "m.safetensors: tensor \"txt_in.weight\" has shape [128], but 2 axes are expected");
  CHECK(fault_of(with_shape(flux(), "txt_in.weight", {128, 0}), kDiffusionRole) ==
        "m.safetensors: tensor \"txt_in.weight\" has shape [128, 0], which no model of this kind has");
  CHECK(fault_of(without(clip(), "text_model.final_layer_norm.bias"), kClipL.role()) ==
        "m.safetensors: tensor \"text_model.final_layer_norm.bias\" is missing");
  CHECK(fault_of(without(t5(), "shared.weight"), kT5xxl.role()) ==
        "m.safetensors: tensor \"encoder.embed_tokens.weight\" is missing");
  CHECK(fault_of(without(vae(), "encoder.down.1.block.0.nin_shortcut.weight"), kVaeRole) ==
        "m.safetensors: tensor \"encoder.down.1.block.0.nin_shortcut.weight\" is missing");
  CHECK(fault_of(with_shape(vae(), "decoder.up.1.block.1.conv2.weight", {64, 64, 1, 1}), kVaeRole) ==
        "m.safetensors: tensor \"decoder.up.1.block.1.conv2.weight\" has shape [64, 64, 1, 1]" + other +
            "[64, 64, 3, 3]");
  std::vector<Entry> whole = flux();
  for (Entry& entry : whole)
    if (entry.name == "single_blocks.2.linear1.weight") entry.dtype = DType::I8;
  CHECK(fault_of(whole, kDiffusionRole) ==
        "m.safetensors: tensor \"single_blocks.2.linear1.weight\" has type I8: quantised weights of this type are not "
        "supported yet");
}

TEST_CASE("a summary") {
  const PartSummary dev = summarise(find_part(file(flux() + std::vector<Entry>{}), kDiffusionRole));
  CHECK(dev.what == "a Flux.1 dev transformer");
  CHECK(dev.supported);
  CHECK(dev.blocks == std::vector<std::pair<std::string, int>>{{"double", 2}, {"single", 3}});
  CHECK(dev.tensors == flux().size());
  CHECK(dev.dtypes == std::map<std::string, std::uint64_t>{{"BF16", dev.bytes}});
  CHECK(dev.quantisation == "none");

  std::vector<Entry> eight = t5("text_encoders.t5xxl.transformer.");
  for (Entry& entry : eight)
    if (entry.name.ends_with("wo.weight")) entry.dtype = DType::F8_E4M3;
  const auto both = [&](const std::vector<Entry>& extra) {
    return summarise(find_part(file(clip("text_encoders.clip_l.transformer.") + eight + extra), kT5xxl.role()));
  };
  const PartSummary plain = both({});
  CHECK(plain.quantisation == "fp8 (F8_E4M3)");
  CHECK(plain.tensors == eight.size());  // not the other part's
  CHECK(plain.dtypes.at("F8_E4M3") == 3 * 48 * 96);
  CHECK(
      both({{"text_encoders.t5xxl.transformer.encoder.block.0.layer.1.DenseReluDense.wo.scale_weight", DType::F32, {}}})
          .quantisation == "fp8 (F8_E4M3), scaled");
}

TEST_CASE("the table is sound") {
  std::set<std::string_view> names;
  for (const FamilyRow& row : family_rows()) {
    CHECK_FALSE(row.what.empty());
    CHECK_FALSE(row.signs.empty());
    CHECK((row.what.starts_with("a ") || row.what.starts_with("an ")));
    for (const Sign& sign : row.signs) CHECK_FALSE(sign.name.empty());
    if (!row.name.empty()) CHECK(names.insert(row.name).second);
    const bool rendered = row.role == &kDiffusionRole && row.model;
    CHECK_MESSAGE(rendered == row.training.has_value(), std::string(row.what));
    CHECK_MESSAGE(rendered == (row.text != nullptr), std::string(row.what));
    CHECK_MESSAGE(rendered == !row.name.empty(), std::string(row.what));
    if (!rendered) continue;
    REQUIRE(row.training->latent.rgb);
    CHECK(row.training->latent.rgb->factors.size() == static_cast<std::size_t>(row.training->latent.channels));
  }
  CHECK(names.size() == 12);
}

TEST_SUITE_END();
