#include "shard/needs.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/autoencoder_model.h"
#include "core/models/flux_sizes.h"
#include "core/models/unet.h"
#include "core/models/unet_model.h"
#include "core/models/unet_sizes.h"
#include "core/text/clip_model.h"
#include "core/text/clip_sizes.h"
#include "core/text/t5_model.h"
#include "core/text/t5_sizes.h"
#include "tests/drawn_weights.h"
#include "tests/model_sets.h"
#include "tests/testing.h"
#include "vae/vae_sizes.h"

using namespace mgpu;

namespace {

std::vector<ComponentNeed> needs(const ComputeDtypes& dtypes = {}, const LargestPicture& picture = {512, 512, 256}) {
  return component_needs(test::flux_set(), dtypes, picture);
}

/// Bytes of a file's tensors under `level`, each value `width` bytes.
std::uint64_t bytes_of(const char* name, std::string_view level, std::uint64_t width) {
  std::uint64_t out = 0;
  const auto file = TensorFile::open(golden(name));
  for (const auto& [tensor, info] : file->tensors()) {
    if (tensor.starts_with(level)) out += static_cast<std::uint64_t>(info.count()) * width;
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("needs");

TEST_CASE("weights are counted in the type that they are kept in") {
  const std::vector<ComponentNeed> fp32 = needs();
  REQUIRE(fp32.size() == 4);
  CHECK(fp32[0].name == "clip_l");
  CHECK(fp32[0].bytes == bytes_of("picture_clip_l.safetensors", "", 2));  // as stored: fp16
  CHECK(fp32[1].name == "t5xxl");
  CHECK(fp32[1].bytes == bytes_of("picture_t5xxl.safetensors", "", 2));  // bf16
  CHECK(fp32[2].name == "unet");
  CHECK(fp32[2].bytes == bytes_of("flux_dev.safetensors", "", 4));
  CHECK(fp32[3].name == "vae");
  // The encoder is not loaded; the decoder's three enlargements are four phases of 2x2 weights each.
  CHECK(fp32[3].bytes == bytes_of("vae_flux.safetensors", "decoder.", 4) + (64 * 64 + 64 * 64 + 32 * 32) * 7 * 4);

  const std::vector<ComponentNeed> bf16 = needs({at::kBFloat16, at::kBFloat16, at::kBFloat16});
  CHECK(bf16[2].bytes * 2 == fp32[2].bytes);
  CHECK(bf16[3].bytes * 2 == fp32[3].bytes);
}

TEST_CASE("blocks are the model's, and weigh no more than the component") {
  for (const ComponentNeed& component : needs()) {
    CAPTURE(component.name);
    std::uint64_t sum = 0;
    for (const BlockNeed& block : component.blocks) {
      CHECK(block.count > 0);
      CHECK(block.bytes > 0);
      sum += block.bytes;
    }
    CHECK(sum <= component.bytes);
  }
  const ModelSet set = test::flux_set();
  const ComponentNeed unet = needs()[2];
  CHECK(unet.blocks[0].count == set.diffusion.as<FluxSizes>().depth);
  CHECK(unet.blocks[0].bytes == bytes_of("flux_dev.safetensors", "double_blocks.", 4));
  CHECK(unet.blocks[1].count == set.diffusion.as<FluxSizes>().depth_single);
  CHECK(unet.blocks[1].bytes == bytes_of("flux_dev.safetensors", "single_blocks.", 4));
  CHECK(unet.blocks[0].bytes_of(0) == bytes_of("flux_dev.safetensors", "double_blocks.0.", 4));
  CHECK(unet.head == bytes_of("flux_dev.safetensors", "final_layer.", 4));
  CHECK_FALSE(unet.skip_paired);
  CHECK(unet.replicated_bytes == bytes_of("flux_dev.safetensors", "time_in.", 4) +
                                     bytes_of("flux_dev.safetensors", "vector_in.", 4) +
                                     bytes_of("flux_dev.safetensors", "guidance_in.", 4));
  CHECK(needs()[1].head == bytes_of("picture_t5xxl.safetensors", "encoder.final_layer_norm.", 2));
  CHECK(needs()[3].indivisible);
}

TEST_CASE("of an encoder's file what is read is counted, stem and head where they are") {
  const auto with = [](const char* name, const test::Entry& entry) {
    const test::Folder folder;
    const auto file = TensorFile::open(golden(name));
    std::vector<test::Entry> entries = {entry};
    for (const auto& [tensor, info] : file->tensors()) entries.push_back({tensor, info.dtype, info.shape});
    return TensorFile::open(folder.write("m.safetensors", test::safetensors(entries)));
  };
  ModelSet set = test::flux_set();
  const std::vector<ComponentNeed> plain = component_needs(set, {}, {64, 64, 256});
  // Files of T5 often hold its token embedding twice; Flux takes CLIP's pooled output as it is.
  set.encoders[1] = find_part(
      with("picture_t5xxl.safetensors", {"encoder.embed_tokens.weight", DType::BF16, {256, 96}}), kT5xxl.role());
  set.encoders[0] =
      find_part(with("picture_clip_l.safetensors", {"text_projection.weight", DType::F16, {128, 128}}), kClipL.role());
  const std::vector<ComponentNeed> more = component_needs(set, {}, {64, 64, 256});
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(more[i].bytes == plain[i].bytes);
    CHECK(more[i].head == plain[i].head);
  }
  // The table of relative positions is named as a part of the first block, and belongs to the stem.
  CHECK(plain[1].blocks[0].bytes_of(0) == plain[1].blocks[0].bytes_of(1));
  CHECK(plain[1].bytes - plain[1].head - plain[1].blocks[0].bytes == (256 * 96 + 32 * 2) * 2);
  CHECK(plain[0].bytes - plain[0].head - plain[0].blocks[0].bytes == (607 + 77) * 128 * 2);
}

TEST_CASE("an encoder's projection is counted where the family multiplies with it") {
  const test::Folder folder;
  const std::string path = folder.write("sdxl.safetensors", test::safetensors(test::drawn_unet("sdxl")));
  ModelSet set;
  set.diffusion = find_part(TensorFile::open(path), kDiffusionRole);
  set.vae = find_part(TensorFile::open(golden("vae_sd.safetensors")), kVaeRole);
  // CLIP-G is told by its layers, of which the small one has three.
  FamilyRow row;
  row.model = &kClipG;
  ClipSizes sizes;
  sizes.hidden = 64, sizes.mlp = 128, sizes.layers = 3, sizes.heads = 2;
  sizes.layers_prefix = "text_model.encoder.layers.";
  set.encoders.push_back(
      {TensorFile::open(golden("text_clip_l.safetensors")), &row, "conditioner.embedders.0.transformer.", sizes});
  sizes.hidden = 128, sizes.layers_prefix = "transformer.resblocks.";
  set.encoders.push_back(
      {TensorFile::open(golden("text_clip_g.safetensors")), &row, "conditioner.embedders.1.model.", sizes});
  const std::vector<ComponentNeed> needs_of = component_needs(set, {}, {64, 64, 77});
  CHECK(needs_of[0].head == 2 * 64 * 2);  // final norm, fp16
  CHECK(needs_of[1].head == (2 * 128 + 128 * 128) * 2);
  CHECK(needs_of[1].bytes == bytes_of("text_clip_g.safetensors", "", 2));
}

TEST_CASE("activations grow with the picture, the prompt and the type") {
  const std::vector<ComponentNeed> base = needs();
  const std::vector<ComponentNeed> larger = needs({}, {1024, 512, 256});
  CHECK(larger[0].activation == base[0].activation);
  CHECK(larger[1].activation == base[1].activation);
  CHECK(larger[2].activation > base[2].activation);
  CHECK(larger[3].modes[0].on_gpu.bytes(1.0) > base[3].modes[0].on_gpu.bytes(1.0));
  CHECK(needs({}, {512, 1024, 256})[2].activation == larger[2].activation);

  const std::vector<ComponentNeed> longer = needs({}, {512, 512, 512});
  CHECK(longer[1].activation > base[1].activation);
  CHECK(longer[2].activation > base[2].activation);
  CHECK(longer[3].activation == base[3].activation);

  const std::vector<ComponentNeed> narrow = needs({at::kBFloat16, at::kBFloat16, std::nullopt});
  CHECK(narrow[2].activation < base[2].activation);
  CHECK(narrow[3].modes[0].on_gpu.bytes(1.0) < base[3].modes[0].on_gpu.bytes(1.0));
  CHECK(narrow[1].activation == base[1].activation);  // encoders compute in fp32 whatever they are stored in
}

TEST_CASE("a UNet's blocks are its ways down and up and the middle, its encoders the family's") {
  const test::Folder folder;
  const ModelSet set = test::unet_set(folder);
  const auto need = [&](const LargestPicture& picture, at::ScalarType dtype = at::kFloat) {
    return component_needs(set, {dtype, dtype, std::nullopt}, picture);
  };
  const std::vector<ComponentNeed> base = need({512, 512, 77});
  REQUIRE(base.size() == 3);
  CHECK(base[0].name == "clip_l");
  const ComponentNeed& unet = base[1];
  CHECK(unet.name == "unet");
  REQUIRE(unet.blocks.size() == 3);
  const std::vector<std::pair<std::string, std::string>> kinds{
      {"down", "input_blocks."}, {"middle", "middle_block."}, {"up", "output_blocks."}};
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    CHECK(unet.blocks[i].kind == kinds[i].first);
    CHECK(unet.blocks[i].count == (i == 1 ? 1 : 12));
    std::uint64_t bytes = 0;
    for (const auto& [name, info] : set.diffusion.file->tensors())
      if (name.starts_with(kinds[i].second)) bytes += info.bytes();
    CHECK(unet.blocks[i].bytes == bytes);
  }
  // Blocks that share a skip are told to share a device, as the plan pairs them: the first with the last.
  CHECK(unet.skip_paired);
  for (const UNetBlockName& name : unet_blocks(set.diffusion.as<UNetSizes>()))
    if (name.skip) CHECK(*name.skip == unet.blocks.front().count - 1 - name.number);
  // The image's top level is 64x64 positions; a block that only resamples there computes less than a residual block.
  REQUIRE(unet.blocks[0].times.size() == 12);
  REQUIRE(unet.blocks[2].times.size() == 12);
  CHECK(unet.blocks[0].time_of(3) < unet.blocks[0].time_of(2));
  CHECK(unet.blocks[2].time_of(11) > unet.blocks[0].time_of(1));  // it takes a skip beside as many channels
  CHECK(unet.blocks[1].time_of(0) > 0.0);
  CHECK(need({512, 512, 77}, at::kHalf)[1].bytes * 2 == unet.bytes);
  CHECK(need({512, 512, 77}, at::kHalf)[1].activation < unet.activation);
  CHECK(need({1024, 512, 77})[1].activation > unet.activation);
  CHECK(need({512, 1024, 77})[1].activation == need({1024, 512, 77})[1].activation);
  CHECK(need({512, 512, 154})[1].activation == unet.activation);
  CHECK(need({512, 512, 154})[1].blocks[1].bytes_per_prompt[0] == 2 * unet.blocks[1].bytes_per_prompt[0]);
}

TEST_CASE("a UNet's activations are counted where it is widest") {
  // One level of 32 channels with a transformer: 64x64 positions, one skip waiting beside the input convolution's.
  UNetSizes sizes;
  sizes.channels_in = sizes.channels_out = 4;
  sizes.model_channels = 32;
  sizes.down = {{.in = 4, .out = 32}, {.in = 32, .out = 32, .depth = 1}};
  sizes.up = {{.in = 32, .out = 32, .skip = 32, .depth = 1}, {.in = 32, .out = 32, .skip = 32, .depth = 1}};
  FamilyRow row;
  row.model = &kUNetModel;
  row.training = Training{.latent = {.channels = 4}};
  const TextRecipe no_encoders{};
  row.text = &no_encoders;
  const auto none = TensorFile::open(golden("vae_sd.safetensors"));
  ModelSet set;
  set.diffusion = {none, &row, "no such tensors", sizes};
  set.vae = find_part(none, kVaeRole);
  const std::vector<ComponentNeed> needs_of = component_needs(set, {}, {512, 512, 77});
  REQUIRE(needs_of.size() == 2);
  // The first up block's feed-forward: one skip waits, and twenty times the tokens are there, those of GEGLU included.
  const std::uint64_t positions = 64 * 64, workspace = std::uint64_t{64} << 20;
  CHECK(needs_of[0].activation == (32 + 20 * 32) * positions * 4 + workspace);
  // A waiting pass has left its skips with the blocks on the way down; a run keeps keys and values where they are used.
  using Bytes = std::vector<std::uint64_t>;
  const std::uint64_t text = std::uint64_t{2} * 77 * 32 * 4;
  const ComponentNeed& unet = needs_of[0];
  CHECK(unet.pass_bytes == 32 * positions * 4);
  CHECK(unet.blocks.front().bytes_per_pass == Bytes(2, 32 * positions * 4));
  CHECK(unet.blocks.front().bytes_per_prompt == Bytes{0, text});
  CHECK(unet.blocks.back().bytes_per_pass.empty());
  CHECK(unet.blocks.back().bytes_per_prompt == Bytes(2, text));
}

TEST_CASE("what a waiting pass and a run keep of Flux: the state; a text's rotary table, every step's modulation") {
  const FluxSizes flux = test::flux_set().diffusion.as<FluxSizes>();
  const auto hidden = static_cast<std::uint64_t>(flux.hidden), head_width = hidden / flux.heads;
  const ComponentNeed need = needs({at::kBFloat16, at::kBFloat16, std::nullopt},
                                   {.width = 512, .height = 256, .text_tokens = 300, .timesteps = 7})[2];
  CHECK(need.pass_bytes == (300 + 32 * 16) * hidden * 2);
  CHECK(need.bytes_per_prompt == (300 + 32 * 16) * head_width * 4);
  CHECK(need.blocks[0].bytes_per_prompt == std::vector<std::uint64_t>(flux.depth, 12 * hidden * 7 * 2));
  CHECK(need.blocks[1].bytes_per_prompt == std::vector<std::uint64_t>(flux.depth_single, 3 * hidden * 7 * 2));
  CHECK(need.blocks[0].bytes_per_pass.empty());
}

TEST_CASE("prompts, steps, texts and the batch count where they lie") {
  const std::vector<ComponentNeed> base = needs();
  const ModelSet set = test::flux_set();
  const std::uint64_t prompt = 4 * (77 * static_cast<std::uint64_t>(set.encoder("clip_l").as<ClipSizes>().hidden) +
                                    256 * static_cast<std::uint64_t>(set.encoder("t5xxl").as<T5Sizes>().hidden));
  const std::vector<ComponentNeed> prompts = needs({}, {.width = 512, .height = 512, .prompts = 6});
  CHECK(prompts[1].activation == base[1].activation + 5 * prompt);
  CHECK(*prompts[1].activation_on_cpu == *base[1].activation_on_cpu + 5 * prompt);
  CHECK(prompts[2].latent_device_bytes == base[2].latent_device_bytes + 5 * prompt);
  CHECK(prompts[2].activation == base[2].activation);
  const std::vector<ComponentNeed> batch = needs({}, {.width = 512, .height = 512, .batch = 3});
  CHECK(batch[2].latent_device_bytes > base[2].latent_device_bytes);
  CHECK((batch[2].latent_device_bytes - base[2].latent_device_bytes) % (std::uint64_t{64} * 64 * 16 * 4) ==
        0);  // latents, of two pictures more
  CHECK(batch[2].latents == base[2].latents);
}

TEST_CASE("a CPU needs no GPU's workspaces, but Flux more beside") {
  constexpr std::uint64_t workspace = std::uint64_t{64} << 20;
  const std::vector<ComponentNeed> small = needs({}, {64, 64, 256});
  for (const ComponentNeed& need : small) {
    CAPTURE(need.name);
    REQUIRE(need.activation_on_cpu);
    CHECK(*need.activation_on_cpu < workspace);
  }
  const ComponentNeed flux = needs({}, {2048, 2048, 256})[2];
  CHECK(*flux.activation_on_cpu > flux.activation - workspace);
}

TEST_CASE("encoding an init image takes the encoder alone, in the encode phase") {
  const ModelSet set = test::flux_set();
  const auto need_of = [&](at::ScalarType dtype, std::int64_t width) {
    return image_encoder_need(set, dtype, {.width = width, .height = 512});
  };
  const ComponentNeed need = need_of(at::kFloat, 512);
  CHECK((need.phase == Phase::Encode));
  CHECK(need.bytes == bytes_of("vae_flux.safetensors", "encoder.", 4));
  const std::uint64_t bytes = need.modes.front().on_cpu.bytes(1.0);
  CHECK(bytes > need_of(at::kBFloat16, 512).modes.front().on_cpu.bytes(1.0));
  CHECK(need_of(at::kFloat, 1024).modes.front().on_cpu.bytes(1.0) > bytes);
}

TEST_CASE("the ways of decoding, each with less memory than the one before it") {
  // Full-size channels; the rest of the file does not count.
  Part vae = test::flux_set().vae;
  VaeSizes sizes = vae.as<VaeSizes>();
  sizes.channels = {128, 256, 512, 512};
  sizes.residual_blocks = 2;
  vae.sizes = sizes;
  const auto gib = [](std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  const ComponentNeed need = autoencoder(vae).decoder_need(vae, at::kBFloat16, {.width = 4096, .height = 4096});
  REQUIRE(need.modes.size() == 7);
  const auto bytes = [&](std::size_t mode, double share) { return gib(need.modes[mode].on_gpu.bytes(share)); };
  CHECK((need.modes[0].mode == DecodeMode::Whole));
  CHECK(bytes(0, 1.0) == doctest::Approx(12.2).epsilon(0.02));  // measured on an H200: 12.4 less weights
  CHECK((need.modes[1].mode == DecodeMode::Parallel));
  CHECK(bytes(1, 1.0) == bytes(0, 1.0));
  CHECK(need.modes[1].on_gpu.units == 32);
  CHECK(bytes(1, 0.5) < 6.6);
  CHECK(bytes(1, 0.25) < 4.0);
  for (const std::size_t i : {2, 3}) {
    CHECK((need.modes[i].mode == DecodeMode::Slabs));
    CHECK(need.modes[i].slabs.levels == 2);
    CHECK(need.modes[i].slabs.together == (i == 3));
    CHECK(bytes(i, 1.0) < bytes(i - 1, 1.0));
  }
  CHECK(bytes(2, 1.0) < 5.5);
  CHECK(bytes(3, 1.0) < 4.0);
  for (std::size_t i = 4; i < 7; ++i) {
    CHECK((need.modes[i].mode == DecodeMode::Tiled));
    CHECK(bytes(i, 1.0) <= std::min(2.7, bytes(i - 1, 1.0)));
  }
  CHECK(bytes(6, 1.0) < bytes(4, 1.0));  // the levels that are whole in both take more than a tile of either size
  CHECK(need.modes[4].tiling.tile == 1024);
  CHECK(need.modes[5].tiling.tile == 512);
  CHECK(need.modes[5].tiling.levels == 2);
  CHECK(need.modes[6].tiling.levels == 3);
  LargestPicture fixed{.width = 4096, .height = 4096};
  fixed.tiling_is_fixed = true;
  CHECK(autoencoder(vae).decoder_need(vae, at::kBFloat16, fixed).modes[5].tiling.tile == 1024);
  // A slab is all of a small picture.
  const ComponentNeed small = autoencoder(vae).decoder_need(vae, at::kBFloat16, {.width = 16, .height = 16});
  CHECK(std::ranges::none_of(small.modes, [](const DecodeNeed& one) { return one.mode == DecodeMode::Slabs; }));
  const ComponentNeed encoder = autoencoder(vae).encoder_need(vae, at::kBFloat16, {.width = 4096, .height = 4096});
  REQUIRE(encoder.modes.size() == 4);
  for (const std::size_t i : {2, 3}) CHECK(encoder.modes[i].on_gpu.bytes(1.0) < encoder.modes[i - 1].on_gpu.bytes(1.0));
}

TEST_SUITE_END();
