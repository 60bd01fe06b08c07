#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/model_set.h"
#include "tests/tensor_writer.h"

using namespace mgpu;
using mgpu::test::Entry;
using mgpu::test::Folder;
using Shape = std::vector<std::int64_t>;

namespace {

/// Tensors under one prefix.
class Names {
 public:
  explicit Names(std::string prefix, DType dtype = DType::BF16) : prefix_(std::move(prefix)), dtype_(dtype) {}
  void add(const std::string& name, const Shape& shape) { entries.push_back({prefix_ + name, dtype_, shape}); }
  void linear(const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", {out, in}), add(name + ".bias", {out});
  }
  void norm(const std::string& name, std::int64_t channels) {
    add(name + ".weight", {channels}), add(name + ".bias", {channels});
  }
  void conv(const std::string& name, std::int64_t out, std::int64_t in, std::int64_t kernel) {
    add(name + ".weight", {out, in, kernel, kernel}), add(name + ".bias", {out});
  }
  std::vector<Entry> entries;

 private:
  std::string prefix_;
  DType dtype_;
};

struct FluxOptions {
  std::string prefix;
  bool guidance = true;
  int in = 64, context = 48, vector = 64;
};

std::vector<Entry> flux(const FluxOptions& options = {}) {
  constexpr int h = 128, mlp = 512;
  Names names(options.prefix);
  names.linear("img_in", h, options.in), names.linear("txt_in", h, options.context);
  names.linear("time_in.in_layer", h, 256), names.linear("time_in.out_layer", h, h);
  names.linear("vector_in.in_layer", h, options.vector), names.linear("vector_in.out_layer", h, h);
  if (options.guidance) names.linear("guidance_in.in_layer", h, 256), names.linear("guidance_in.out_layer", h, h);
  for (int i = 0; i < 2; ++i)
    for (const char* stream : {"img", "txt"}) {
      const std::string p = fmt::format("double_blocks.{}.{}", i, stream);
      names.linear(p + "_mod.lin", 6 * h, h), names.linear(p + "_attn.qkv", 3 * h, h),
          names.linear(p + "_attn.proj", h, h);
      names.add(p + "_attn.norm.query_norm.scale", {128}), names.add(p + "_attn.norm.key_norm.scale", {128});
      names.linear(p + "_mlp.0", mlp, h), names.linear(p + "_mlp.2", h, mlp);
    }
  for (int i = 0; i < 3; ++i) {
    const std::string p = fmt::format("single_blocks.{}.", i);
    names.linear(p + "modulation.lin", 3 * h, h), names.linear(p + "linear1", 3 * h + mlp, h),
        names.linear(p + "linear2", h, h + mlp);
    names.add(p + "norm.query_norm.scale", {128}), names.add(p + "norm.key_norm.scale", {128});
  }
  names.linear("final_layer.adaLN_modulation.1", 2 * h, h), names.linear("final_layer.linear", 64, h);
  return names.entries;
}

std::vector<Entry> clip(const std::string& prefix = "", int hidden = 64, int positions = 77) {
  Names names(prefix, DType::F16);
  names.add("text_model.embeddings.token_embedding.weight", {100, hidden});
  names.add("text_model.embeddings.position_embedding.weight", {positions, hidden});
  for (int i = 0; i < 2; ++i) {
    const std::string p = fmt::format("text_model.encoder.layers.{}.", i);
    for (const char* q : {"q_proj", "k_proj", "v_proj", "out_proj"}) names.linear(p + "self_attn." + q, hidden, hidden);
    names.norm(p + "layer_norm1", hidden), names.norm(p + "layer_norm2", hidden);
    names.linear(p + "mlp.fc1", 4 * hidden, hidden), names.linear(p + "mlp.fc2", hidden, 4 * hidden);
  }
  names.norm("text_model.final_layer_norm", hidden);
  return names.entries;
}

std::vector<Entry> t5(const std::string& prefix = "", int hidden = 48, const std::string& embedding = "shared.weight") {
  Names names(prefix);
  names.add(embedding, {200, hidden});
  names.add("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", {32, 2});
  for (int i = 0; i < 3; ++i) {
    const std::string p = fmt::format("encoder.block.{}.layer.", i);
    for (const char* q : {"q", "k", "v"}) names.add(p + "0.SelfAttention." + q + ".weight", {40, hidden});
    names.add(p + "0.SelfAttention.o.weight", {hidden, 40});
    names.add(p + "0.layer_norm.weight", {hidden}), names.add(p + "1.layer_norm.weight", {hidden});
    names.add(p + "1.DenseReluDense.wi_0.weight", {96, hidden}),
        names.add(p + "1.DenseReluDense.wi_1.weight", {96, hidden});
    names.add(p + "1.DenseReluDense.wo.weight", {hidden, 96});
  }
  names.add("encoder.final_layer_norm.weight", {hidden});
  return names.entries;
}

void residual(Names& names, const std::string& p, int in, int out) {
  names.norm(p + ".norm1", in), names.conv(p + ".conv1", out, in, 3), names.norm(p + ".norm2", out),
      names.conv(p + ".conv2", out, out, 3);
  if (in != out) names.conv(p + ".nin_shortcut", out, in, 1);
}

void middle(Names& names, const std::string& p, int channels) {
  residual(names, p + ".block_1", channels, channels), residual(names, p + ".block_2", channels, channels);
  names.norm(p + ".attn_1.norm", channels);
  for (const char* q : {"q", "k", "v", "proj_out"}) names.conv(p + ".attn_1." + q, channels, channels, 1);
}

std::vector<Entry> vae(const std::string& prefix = "", int latent = 16, bool encoder = true) {
  Names names(prefix, DType::F32);
  constexpr int kBase = 32;
  constexpr int kMultipliers[] = {1, 2, 2};
  if (encoder) {
    names.conv("encoder.conv_in", kBase, 3, 3);
    int c = kBase;
    for (int level = 0; level < 3; ++level) {
      for (int i = 0; i < 2; ++i) {
        residual(names, fmt::format("encoder.down.{}.block.{}", level, i), c, kBase * kMultipliers[level]);
        c = kBase * kMultipliers[level];
      }
      if (level < 2) names.conv(fmt::format("encoder.down.{}.downsample.conv", level), c, c, 3);
    }
    middle(names, "encoder.mid", c), names.norm("encoder.norm_out", c),
        names.conv("encoder.conv_out", 2 * latent, c, 3);
  }
  int c = kBase * kMultipliers[2];
  names.conv("decoder.conv_in", c, latent, 3), middle(names, "decoder.mid", c);
  for (int level = 2; level >= 0; --level) {
    for (int i = 0; i < 3; ++i) {
      residual(names, fmt::format("decoder.up.{}.block.{}", level, i), c, kBase * kMultipliers[level]);
      c = kBase * kMultipliers[level];
    }
    if (level > 0) names.conv(fmt::format("decoder.up.{}.upsample.conv", level), c, c, 3);
  }
  names.norm("decoder.norm_out", c), names.conv("decoder.conv_out", 3, c, 3);
  return names.entries;
}

std::vector<Entry> operator+(std::vector<Entry> a, const std::vector<Entry>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<Entry> without(std::vector<Entry> entries, const std::string& name) {
  std::erase_if(entries, [&](const Entry& entry) { return entry.name == name; });
  return entries;
}

std::vector<Entry> with_shape(std::vector<Entry> entries, const std::string& name, const Shape& shape) {
  for (Entry& entry : entries)
    if (entry.name == name) entry.shape = shape;
  return entries;
}

const Folder& folder() {
  static const Folder shared;
  return shared;
}

std::shared_ptr<const TensorFile> file(const std::vector<Entry>& entries, const std::string& name = "m.safetensors") {
  return TensorFile::open(folder().write(name, test::safetensors(entries)));
}

/// What `action` says, less the folder, with its hint after " | "; "" when it is content.
std::string fault(const std::function<void()>& action) {
  try {
    action();
    return "";
  } catch (const Error& error) {
    CHECK(error.code() == Exit::Usage);
    std::string text = error.where().file + ": " + error.message() + (error.hint().empty() ? "" : " | " + error.hint());
    for (std::size_t at = 0; (at = text.find(folder().path(""), at)) != std::string::npos;)
      text.erase(at, folder().path("").size());
    return text;
  }
}

std::string fault_of(const std::vector<Entry>& entries, Role role) {
  return fault([&] { find_part(file(entries), role); });
}

std::string write(const std::string& name, const std::vector<Entry>& entries) {
  return folder().write(name, test::safetensors(entries));
}

std::string fault_of_set(const ModelPaths& paths) {
  return fault([&] { open_models(paths); });
}

}  // namespace

TEST_SUITE_BEGIN("family");

TEST_CASE("Flux.1 dev and schnell, bare or prefixed") {
  for (const char* prefix : {"", "model.diffusion_model."}) {
    const Part dev = find_part(file(flux({.prefix = prefix})), Role::Diffusion);
    CHECK(dev.row->name == "flux1-dev");
    CHECK(dev.prefix == prefix);
    CHECK(dev.flux().hidden == 128);
    CHECK(dev.flux().heads == 1);
    CHECK(dev.flux().mlp == 512);
    CHECK(dev.flux().depth == 2);
    CHECK(dev.flux().depth_single == 3);
    CHECK(dev.flux().context == 48);
    CHECK(dev.flux().vector == 64);
    CHECK(dev.flux().channels == 16);
    CHECK(dev.flux().guidance);
    CHECK((dev.row->training->prediction == Prediction::Velocity));
    CHECK(dev.row->training->levels == 10000);
    CHECK(dev.row->training->mu == 1.15);
    CHECK(dev.row->training->size_multiple == 16);

    const Part schnell = find_part(file(flux({.prefix = prefix, .guidance = false})), Role::Diffusion);
    CHECK(schnell.row->name == "flux1-schnell");
    CHECK_FALSE(schnell.flux().guidance);
    CHECK(schnell.row->training->levels == 1000);
    CHECK(schnell.row->training->mu == 0);
  }
}

TEST_CASE("encoders and autoencoder") {
  const ClipSizes clip_l = find_part(file(clip()), Role::ClipL).clip();
  CHECK(clip_l.hidden == 64);
  CHECK(clip_l.heads == 1);
  CHECK(clip_l.mlp == 256);
  CHECK(clip_l.layers == 2);
  CHECK(clip_l.vocabulary == 100);
  CHECK(clip_l.positions == 77);
  CHECK_FALSE(clip_l.projection);

  for (const char* embedding : {"shared.weight", "encoder.embed_tokens.weight"}) {
    const T5Sizes sizes = find_part(file(t5("", 48, embedding)), Role::T5).t5();
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
    const VaeSizes sizes = find_part(file(vae("", 16, encoder)), Role::Vae).vae();
    CHECK(sizes.channels == std::vector<int>{32, 64, 64});
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
    CHECK(parts[3].vae().latent_channels == 16);
    CHECK_NOTHROW(open_models({.checkpoint = all->path()}));
  }
}

TEST_CASE("a checkpoint's own parts") {
  const auto bare = file(flux());
  CHECK(fault([&] { find_own_part(bare, Role::Vae); }) ==
        "m.safetensors: does not hold an autoencoder | name one under \"vae\"");
  CHECK(fault([&] { find_own_part(bare, Role::T5); }) ==
        "m.safetensors: does not hold a T5 text encoder | name one under \"encoders.t5xxl\"");
  CHECK(fault([&] { find_own_part(bare, Role::ClipL); }) ==
        "m.safetensors: does not hold a CLIP-L text encoder | name one under \"encoders.clip_l\"");
}

TEST_CASE("a file in the wrong place") {
  CHECK(fault_of(t5(), Role::ClipL) ==
        "m.safetensors: is a T5 v1.1 text encoder, not a CLIP-L text encoder | it belongs under \"encoders.t5xxl\"");
  CHECK(fault_of(clip(), Role::T5) ==
        "m.safetensors: is a CLIP-L text encoder, not a T5 text encoder | it belongs under \"encoders.clip_l\"");
  CHECK(fault_of(vae(), Role::Diffusion) ==
        "m.safetensors: is an autoencoder of 16 latent channels, not a diffusion model | it belongs under \"vae\"");
  CHECK(fault_of(flux(), Role::Vae) ==
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
  CHECK(fault_of(without(flux(), "single_blocks.1.linear2.bias"), Role::Diffusion) ==
        "m.safetensors: tensor \"single_blocks.1.linear2.bias\" is missing");
  CHECK(fault_of(with_shape(flux(), "double_blocks.1.txt_mlp.0.weight", {512, 64}), Role::Diffusion) ==
        "m.safetensors: tensor \"double_blocks.1.txt_mlp.0.weight\" has shape [512, 64]" + other + "[512, 128]");
  CHECK(fault_of(with_shape(flux(), "img_in.weight", {100, 64}), Role::Diffusion) ==
        "m.safetensors: tensor \"img_in.weight\" has shape [100, 64], but 100 is not a multiple of 128");
  CHECK(fault_of(with_shape(flux(), "txt_in.weight", {128}), Role::Diffusion) ==
        "m.safetensors: tensor \"txt_in.weight\" has shape [128], but 2 axes are expected");
  CHECK(fault_of(with_shape(flux(), "txt_in.weight", {128, 0}), Role::Diffusion) ==
        "m.safetensors: tensor \"txt_in.weight\" has shape [128, 0], which no model of this kind has");
  CHECK(fault_of(without(clip(), "text_model.final_layer_norm.bias"), Role::ClipL) ==
        "m.safetensors: tensor \"text_model.final_layer_norm.bias\" is missing");
  CHECK(fault_of(without(t5(), "shared.weight"), Role::T5) ==
        "m.safetensors: tensor \"encoder.embed_tokens.weight\" is missing");
  CHECK(fault_of(without(vae(), "encoder.down.1.block.0.nin_shortcut.weight"), Role::Vae) ==
        "m.safetensors: tensor \"encoder.down.1.block.0.nin_shortcut.weight\" is missing");
  CHECK(fault_of(with_shape(vae(), "decoder.up.1.block.1.conv2.weight", {64, 64, 1, 1}), Role::Vae) ==
        "m.safetensors: tensor \"decoder.up.1.block.1.conv2.weight\" has shape [64, 64, 1, 1]" + other +
            "[64, 64, 3, 3]");
  std::vector<Entry> whole = flux();
  for (Entry& entry : whole)
    if (entry.name == "single_blocks.2.linear1.weight") entry.dtype = DType::I8;
  CHECK(fault_of(whole, Role::Diffusion) ==
        "m.safetensors: tensor \"single_blocks.2.linear1.weight\" has type I8: quantised weights of this type are not "
        "supported yet");
}

TEST_CASE("what is known but not supported is named") {
  const auto named = [](const std::string& what, const std::vector<std::pair<std::string, Shape>>& tensors) {
    std::vector<Entry> entries;
    for (const auto& [name, shape] : tensors) entries.push_back({name, DType::U8, shape});
    const std::string said = fault_of(entries, Role::Diffusion);
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

  CHECK(fault_of(clip("", 64, 248), Role::ClipL) ==
        "m.safetensors: is a Long-CLIP text encoder, which is not supported yet");
  CHECK(fault_of({{"model.layers.0.post_attention_layernorm.weight", DType::U8, {1}}}, Role::T5) ==
        "m.safetensors: is a Llama text encoder, which is not supported yet");
  CHECK(fault_of(t5() +
                     std::vector<Entry>{
                         {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight", DType::U8, {1}}},
                 Role::T5) ==
        "m.safetensors: is a UMT5 text encoder, which is not supported yet | Flux.1 takes T5 v1.1 XXL");
  CHECK(fault_of({{"decoder.up_blocks.0.resnets.0.norm1.weight", DType::U8, {1}},
                  {"decoder.conv_in.weight", DType::U8, {1, 16, 3, 3}}},
                 Role::Vae)
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
        "text_model.encoder.layers.30.mlp.fc1.weight (a CLIP-G text encoder), "
        "transformer.resblocks.30.mlp.c_fc.weight (a CLIP-G text encoder), "
        "transformer.resblocks.0.mlp.c_fc.weight (a CLIP-G text encoder), "
        "text_model.encoder.layers.22.mlp.fc1.weight (a CLIP-H text encoder), "
        "text_model.encoder.layers.0.mlp.fc1.weight (a CLIP-L text encoder), "
        "encoder.block.0.layer.0.SelfAttention.k.weight (a T5 text encoder), decoder.conv_in.weight (an autoencoder)");
  CHECK(fault([] { recognise(file(std::vector<Entry>{})); }).starts_with("m.safetensors: holds no tensors"));
}

TEST_CASE("recognise lists parts that are not supported, too") {
  const std::vector<Part> parts = recognise(
      file(std::vector<Entry>{{"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", DType::U8, {1}}} +
           t5("text_encoders.t5xxl.transformer.") + vae("first_stage_model.")));
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].row->what == "a Stable Diffusion 3 checkpoint");
  CHECK((parts[0].row->read == nullptr));
  CHECK(std::holds_alternative<std::monostate>(parts[0].sizes));
  CHECK(parts[1].t5().layers == 3);
}

TEST_CASE("a summary") {
  const PartSummary dev = summarise(find_part(file(flux() + std::vector<Entry>{}), Role::Diffusion));
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
    return summarise(find_part(file(clip("text_encoders.clip_l.transformer.") + eight + extra), Role::T5));
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
    const bool rendered = row.role == Role::Diffusion && row.read;
    CHECK_MESSAGE(rendered == row.training.has_value(), std::string(row.what));
    CHECK_MESSAGE(rendered == (row.text != nullptr), std::string(row.what));
    CHECK_MESSAGE(rendered == !row.name.empty(), std::string(row.what));
  }
  CHECK(names.size() == 12);
}

TEST_SUITE_END();
