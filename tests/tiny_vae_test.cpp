#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <map>

#include "core/autoencoder_model.h"
#include "core/error.h"
#include "core/model_set.h"
#include "core/text/clip_model.h"
#include "tests/family_files.h"
#include "tests/model_sets.h"
#include "tests/testing.h"
#include "vae/tiny_autoencoder.h"
#include "vae/tiny_codec.h"
#include "vae/tiny_vae_sizes.h"

using namespace mgpu;
using test::Entries;
using test::fault;
using test::fault_of;
using test::file;
using test::Shape;

TEST_SUITE_BEGIN("tiny_vae");

namespace {

const LatentFormat kFlux{16, 8, 0.3611, 0.1159};

Part golden_part(const std::string& name) {
  return find_part(TensorFile::open(golden(name + ".safetensors")), kVaeRole);
}

Weights weights_of(const Part& part) {
  return mgpu::weights_of(part, at::kFloat, at::kCPU);
}

/// Numbers of this model's cases of one kind, and their tensors.
std::vector<std::string> cases_of(const TensorFile& cases, const std::string& model, const std::string& kind) {
  std::vector<std::string> out;
  for (int i = 0; i < 4; ++i) {
    const std::string prefix = fmt::format("{}.{}.{}.", model, kind, i);
    if (cases.find(prefix + "latent")) out.push_back(prefix);
  }
  return out;
}

/// A golden's tensors, renamed; those for which `rename` gives nothing are left out.
Entries renamed(const std::string& name, const std::function<std::string(const std::string&)>& rename) {
  Entries out;
  const auto from = TensorFile::open(golden(name + ".safetensors"));
  for (const auto& [tensor, info] : from->tensors()) {
    const auto bytes = from->bytes(info);
    const std::string to = rename(tensor);
    if (!to.empty())
      out.push_back({to, info.dtype, info.shape, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}});
  }
  return out;
}

/// The tensors of one coder as released, in a file of its own.
Entries alone(const std::string& coder) {
  return renamed("tiny_vae_flux", [&](const std::string& name) {
    return name.starts_with(coder) ? name.substr(coder.size()) : std::string();
  });
}

Entries reshaped(Entries entries, const std::string& name, const Shape& shape) {
  for (test::Entry& entry : entries)
    if (entry.name == name) entry.shape = shape, entry.data.clear();
  return entries;
}

}  // namespace

TEST_CASE("decodes and encodes are those of diffusers' AutoencoderTiny") {
  const auto cases = TensorFile::open(golden("tiny_vae_cases.safetensors"));
  for (const char* name : {"tiny_vae_flux", "tiny_vae_sd"}) {
    const Part part = golden_part(name);
    const TinyDecoder decoder(part.as<TinyVaeSizes>(), weights_of(part));
    const TinyEncoder encoder(part.as<TinyVaeSizes>(), weights_of(part));
    const auto decodes = cases_of(*cases, name, "decode"), encodes = cases_of(*cases, name, "encode");
    CHECK(!decodes.empty());
    CHECK(!encodes.empty());
    for (const std::string& prefix : decodes) {
      CAPTURE(prefix);
      const at::Tensor image = decoder.forward(read(*cases, prefix + "latent"));
      CHECK(relative_l2(image * 2 - 1, read(*cases, prefix + "image")) <= 1e-5);
    }
    for (const std::string& prefix : encodes) {
      CAPTURE(prefix);
      const at::Tensor latent = encoder.forward((read(*cases, prefix + "pixels") + 1) / 2);
      CHECK(relative_l2(latent, read(*cases, prefix + "latent")) <= 1e-5);
    }
  }
}

TEST_CASE("the codec hands a tiny autoencoder the latent that is sampled, and takes pictures in 0..1") {
  const auto cases = TensorFile::open(golden("tiny_vae_cases.safetensors"));
  const Part part = golden_part("tiny_vae_flux");
  const Decoding decoding = tiny_decoding(part.as<TinyVaeSizes>(), weights_of(part), kFlux);
  const at::Tensor latent = read(*cases, "tiny_vae_flux.decode.0.latent");
  const at::Tensor expected = ((read(*cases, "tiny_vae_flux.decode.0.image") + 1) / 2).clamp(0, 1);
  const at::Tensor image = decode(latent, kFlux, decoding);
  CHECK(relative_l2(image, expected) <= 1e-5);
  const at::Tensor two = decode(at::cat({latent, -latent}), kFlux, decoding);
  CHECK(at::equal(two.narrow(0, 0, 1), image));
  CHECK(at::equal(two.narrow(0, 1, 1), decode(-latent, kFlux, decoding)));

  const Encoding encoding = tiny_encoding(part.as<TinyVaeSizes>(), weights_of(part), kFlux);
  const at::Tensor pixels = read(*cases, "tiny_vae_flux.encode.0.pixels");
  CHECK(relative_l2(encode((pixels + 1) / 2, kFlux, encoding), read(*cases, "tiny_vae_flux.encode.0.latent")) <= 1e-5);
  CHECK(encoding(pixels).logvar.max().item<float>() == -30.0F);
}

TEST_CASE("sizes come from the tensors, under the names of each layout") {
  const TinyVaeSizes joined = golden_part("tiny_vae_flux").as<TinyVaeSizes>();
  CHECK(joined.latent_channels == 16);
  CHECK(joined.factor() == 8);
  CHECK(joined.decoder.layers == "taesd_decoder.");
  CHECK(joined.decoder.first == 1);
  CHECK(joined.decoder.channels == 8);
  CHECK(joined.decoder.blocks == std::vector<int>{2, 1, 3, 1});
  CHECK(joined.encoder.layers == "taesd_encoder.");
  CHECK(joined.encoder.channels == 8);
  CHECK(joined.encoder.blocks == std::vector<int>{1, 2, 1, 2});

  const Part diffusers = golden_part("tiny_vae_sd");
  CHECK(diffusers.row->what == "a tiny autoencoder of 4 latent channels");
  CHECK(diffusers.as<TinyVaeSizes>().decoder.layers == "decoder.layers.");
  CHECK(diffusers.as<TinyVaeSizes>().decoder.first == 0);
  CHECK(diffusers.as<TinyVaeSizes>().decoder.blocks == std::vector<int>{3, 3, 3, 1});
  CHECK(diffusers.as<TinyVaeSizes>().encoder.blocks == std::vector<int>{1, 3, 3, 3});
  const AutoencoderFacts facts = autoencoder(diffusers).facts(diffusers);
  CHECK(facts.latent_channels == 4);
  CHECK(facts.factor == 8);
  CHECK(facts.levels == 4);
  CHECK(facts.encoder);
}

TEST_CASE("a decoder as it was released is known, and decodes what both together do") {
  const Part part = find_part(file(alone("taesd_decoder.")), kVaeRole);
  CHECK(part.row->what == "a tiny autoencoder of 16 latent channels");
  CHECK(part.as<TinyVaeSizes>().decoder.blocks == std::vector<int>{2, 1, 3, 1});
  CHECK_FALSE(autoencoder(part).facts(part).encoder);
  const at::Tensor latent =
      read(*TensorFile::open(golden("tiny_vae_cases.safetensors")), "tiny_vae_flux.decode.0.latent");
  const Part both = golden_part("tiny_vae_flux");
  CHECK(at::equal(TinyDecoder(part.as<TinyVaeSizes>(), weights_of(part)).forward(latent),
                  TinyDecoder(both.as<TinyVaeSizes>(), weights_of(both)).forward(latent)));

  const Entries prefixed =
      renamed("tiny_vae_flux", [](const std::string& name) { return "first_stage_model." + name; });
  CHECK(find_part(file(prefixed), kVaeRole).prefix == "first_stage_model.");
}

TEST_CASE("files that are not quite tiny autoencoders are refused with the reason") {
  CHECK(
      fault_of(alone("taesd_encoder."), kVaeRole) ==
      "m.safetensors: is a tiny autoencoder's encoder alone, which is not supported yet | name its decoder's file, or "
      "one that holds both");
  CHECK(fault_of({{"1.weight", DType::F16, {64, 32, 3, 3}}, {"3.conv.0.weight", DType::F16, {64, 64, 3, 3}}}, kVaeRole)
            .starts_with("m.safetensors: is a tiny autoencoder of another kind, which is not supported yet | Flux.1 "
                         "takes ae.safetensors"));
  const Entries decoder = alone("taesd_decoder.");
  CHECK(fault_of(without(decoder, "4.conv.2.bias"), kVaeRole) == "m.safetensors: tensor \"4.conv.2.bias\" is missing");
  CHECK(
      fault_of(reshaped(decoder, "6.weight", {8, 8, 1, 1}), kVaeRole) ==
      "m.safetensors: tensor \"6.weight\" has shape [8, 8, 1, 1], but the model's other tensors ask for [8, 8, 3, 3]");
  CHECK(fault_of(without(decoder, "9.weight"), kVaeRole) ==
        "m.safetensors: its decoder has 2 levels of blocks, and a tiny autoencoder has 4");
  const Entries short_one = {{"1.weight", DType::F16, {8, 4, 3, 3}},
                             {"1.bias", DType::F16, {8}},
                             {"3.conv.0.weight", DType::F16, {8, 8, 3, 3}},
                             {"4.weight", DType::F16, {3, 8, 3, 3}},
                             {"4.bias", DType::F16, {3}}};
  CHECK(fault_of(short_one, kVaeRole) ==
        "m.safetensors: its decoder has 1 level of blocks, and a tiny autoencoder has 4");
  CHECK(fault_of(decoder, kClipL.role()) ==
        "m.safetensors: is a tiny autoencoder of 16 latent channels, not a CLIP-L text encoder | it belongs under "
        "\"vae\"");
  CHECK(fault([] {
          const Part part = golden_part("tiny_vae_flux");
          TinyDecoder(golden_part("tiny_vae_sd").as<TinyVaeSizes>(), weights_of(part));
        }).ends_with("tensor \"decoder.layers.0.weight\" is missing"));
}

TEST_CASE("a tiny autoencoder of another latent does not belong to the model") {
  CHECK(fault([] {
          open_models(test::Paths{.checkpoint = golden("flux_schnell.safetensors"),
                                  .clip_l = golden("picture_clip_l.safetensors"),
                                  .t5xxl = golden("picture_t5xxl.safetensors"),
                                  .vae = golden("tiny_vae_sd.safetensors")});
        })
            .ends_with("its latent channels are 4, and that model takes 16 | name the autoencoder that the model was "
                       "released with"));
}

TEST_CASE("its need: one coder's tensors, and three tensors of a block at full resolution") {
  constexpr std::uint64_t pixels = 512 * 256, workspace = std::uint64_t{64} << 20;
  const LargestPicture picture{.width = 512, .height = 256};
  const Part part = golden_part("tiny_vae_flux");
  const auto bytes_of = [&](std::string_view coder) {
    std::uint64_t values = 0;
    for (const auto& [name, info] : part.file->tensors())
      if (name.starts_with(coder)) values += static_cast<std::uint64_t>(info.count());
    return values * 4;
  };
  const std::uint64_t block = pixels * 3 * 8 * 4, largest = 8 * 16 * 9 * 4;
  const ComponentNeed decoder = autoencoder(part).decoder_need(part, at::kFloat, picture);
  CHECK(decoder.name == "vae");
  CHECK((decoder.phase == Phase::Decode));
  CHECK(decoder.indivisible);
  CHECK(decoder.bytes == bytes_of("taesd_decoder."));
  REQUIRE(decoder.blocks.size() == 1);
  CHECK(decoder.blocks[0].kind == "level");
  CHECK(decoder.blocks[0].count == 4);
  CHECK(decoder.blocks[0].bytes == decoder.bytes);
  CHECK(decoder.activation == workspace);
  CHECK(decoder.activation_on_cpu == largest);
  REQUIRE(decoder.modes.size() == 1);
  CHECK((decoder.modes[0].mode == DecodeMode::Whole));
  CHECK(decoder.modes[0].on_gpu.bytes(1.0) == block * 5 / 4 + pixels * 4);
  CHECK(decoder.modes[0].on_cpu.bytes(1.0) == block + pixels * 4 + std::uint64_t{10} * 20480 * 4);

  const ComponentNeed encoder = autoencoder(part).encoder_need(part, at::kBFloat16, picture);
  CHECK((encoder.phase == Phase::Encode));
  CHECK(encoder.indivisible);
  CHECK(encoder.bytes == bytes_of("taesd_encoder.") / 2);
  CHECK(encoder.blocks[0].kind == "encoder level");
  REQUIRE(encoder.modes.size() == 1);
  CHECK(encoder.modes[0].on_gpu.bytes(1.0) == block / 2 * 5 / 4 + pixels * 36);

  // A file of the decoder alone counts whole.
  const Part alone_part = find_part(file(alone("taesd_decoder.")), kVaeRole);
  CHECK(autoencoder(alone_part).decoder_need(alone_part, at::kFloat, picture).bytes == decoder.bytes);
}

TEST_SUITE_END();
