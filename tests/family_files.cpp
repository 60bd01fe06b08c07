#include "tests/family_files.h"

#include <doctest/doctest.h>

#include "core/error.h"

namespace mgpu::test {
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
  Entries entries;

 private:
  std::string prefix_;
  DType dtype_;
};

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

}  // namespace

Entries flux(const FluxOptions& options) {
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

Entries clip(const std::string& prefix, int hidden, int positions, int layers) {
  Names names(prefix, DType::F16);
  names.add("text_model.embeddings.token_embedding.weight", {100, hidden});
  names.add("text_model.embeddings.position_embedding.weight", {positions, hidden});
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("text_model.encoder.layers.{}.", i);
    for (const char* q : {"q_proj", "k_proj", "v_proj", "out_proj"}) names.linear(p + "self_attn." + q, hidden, hidden);
    names.norm(p + "layer_norm1", hidden), names.norm(p + "layer_norm2", hidden);
    names.linear(p + "mlp.fc1", 4 * hidden, hidden), names.linear(p + "mlp.fc2", hidden, 4 * hidden);
  }
  names.norm("text_model.final_layer_norm", hidden);
  return names.entries;
}

Entries open_clip(const std::string& prefix, int hidden, int layers) {
  Names names(prefix, DType::F16);
  names.add("token_embedding.weight", {100, hidden}), names.add("positional_embedding", {77, hidden});
  names.add("text_projection", {hidden, hidden});
  for (int i = 0; i < layers; ++i) {
    const std::string p = fmt::format("transformer.resblocks.{}.", i);
    names.norm(p + "ln_1", hidden), names.norm(p + "ln_2", hidden);
    names.add(p + "attn.in_proj_weight", {3 * hidden, hidden}), names.add(p + "attn.in_proj_bias", {3 * hidden});
    names.linear(p + "attn.out_proj", hidden, hidden);
    names.linear(p + "mlp.c_fc", 8, hidden), names.linear(p + "mlp.c_proj", hidden, 8);
  }
  names.norm("ln_final", hidden);
  return names.entries;
}

Entries t5(const std::string& prefix, int hidden, const std::string& embedding) {
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

Entries vae(const std::string& prefix, int latent, bool encoder) {
  Names names(prefix, DType::F32);
  constexpr int kBase = 32;
  constexpr int kMultipliers[] = {1, 2, 2, 2}, kLast = 3;
  if (encoder) {
    names.conv("encoder.conv_in", kBase, 3, 3);
    int c = kBase;
    for (int level = 0; level <= kLast; ++level) {
      for (int i = 0; i < 2; ++i) {
        residual(names, fmt::format("encoder.down.{}.block.{}", level, i), c, kBase * kMultipliers[level]);
        c = kBase * kMultipliers[level];
      }
      if (level < kLast) names.conv(fmt::format("encoder.down.{}.downsample.conv", level), c, c, 3);
    }
    middle(names, "encoder.mid", c), names.norm("encoder.norm_out", c),
        names.conv("encoder.conv_out", 2 * latent, c, 3);
  }
  int c = kBase * kMultipliers[kLast];
  names.conv("decoder.conv_in", c, latent, 3), middle(names, "decoder.mid", c);
  for (int level = kLast; level >= 0; --level) {
    for (int i = 0; i < 3; ++i) {
      residual(names, fmt::format("decoder.up.{}.block.{}", level, i), c, kBase * kMultipliers[level]);
      c = kBase * kMultipliers[level];
    }
    if (level > 0) names.conv(fmt::format("decoder.up.{}.upsample.conv", level), c, c, 3);
  }
  names.norm("decoder.norm_out", c), names.conv("decoder.conv_out", 3, c, 3);
  return names.entries;
}

Entries without(Entries entries, const std::string& begin) {
  std::erase_if(entries, [&](const Entry& entry) { return entry.name.starts_with(begin); });
  return entries;
}

Entries operator+(Entries a, const Entries& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Folder& folder() {
  static const Folder shared;
  return shared;
}

std::shared_ptr<const TensorFile> file(const Entries& entries, const std::string& name) {
  return TensorFile::open(folder().write(name, safetensors(entries)));
}

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

std::string fault_of(const Entries& entries, const Role& role) {
  return fault([&] { find_part(file(entries), role); });
}

}  // namespace mgpu::test
