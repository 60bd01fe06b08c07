// What tells the families apart is public knowledge of their layouts; the same names decide in ComfyUI
// (comfy/model_detection.py, comfy/sd.py).

#include "core/family_tables.h"
#include "core/signs.h"
#include "core/text/clip_model.h"
#include "core/text/t5_model.h"

namespace mgpu {

using namespace signs;

namespace {

constexpr std::string_view kT5Key = "encoder.block.0.layer.0.SelfAttention.k.weight";
constexpr std::string_view kCheckpointVector = "model.diffusion_model.label_emb.0.0.weight";
constexpr std::string_view kOpenClipLayer = "transformer.resblocks.0.mlp.c_fc.weight";

/// RunState apart by depth, as ComfyUI does, whatever the layout: up to 22 layers are CLIP-L's, up to 30 H's, more are
/// G's; a file may leave out the last. Of OpenCLIP's layout there are small models too: those of 10 layers or less are
/// H's, or G's in a checkpoint whose UNet takes a vector (SDXL and its refiner).
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
    const auto add = [&](const ClipModel& model, std::string_view what, std::int64_t least, std::int64_t most) {
      rows.push_back({&model.role(),
                      what,
                      {has(layout.first), has(layout.positions), blocks(layout.level, least, most)},
                      "",
                      &model});
    };
    rows.push_back({&kClipL.role(), "a Long-CLIP text encoder", {has(layout.first), dim(layout.positions, 0, 248)}});
    add(kClipL, kL, 1, kMostL);
    add(kClipH, kH, kMostL + 1, kMostH);
    add(kClipG, kG, kMostH + 1, kMost);
  }
  const auto open_clip = [&](const ClipModel& model, std::string_view what, std::int64_t least, std::int64_t most,
                             const std::vector<Sign>& more) {
    rows.push_back({&model.role(), what,
                    std::vector<Sign>{has(kOpenClipLayer), blocks("transformer.resblocks.", least, most)} + more, "",
                    &model});
  };
  open_clip(kClipL, kL, kSmall + 1, kMostL, {});
  open_clip(kClipH, kH, kMostL + 1, kMostH, {});
  open_clip(kClipH, kH, 1, kSmall, {not_in_file(kCheckpointVector)});
  open_clip(kClipG, kG, kMostH + 1, kMost, {});
  open_clip(kClipG, kG, 1, kSmall, {in_file(kCheckpointVector)});
  return rows;
}

std::vector<FamilyRow> language_models() {
  const Role* role = &kT5xxl.role();
  return {
      {role,
       "a UMT5 text encoder",
       {has(kT5Key), has("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight")},
       "Flux.1 takes T5 v1.1 XXL"},
      {role,
       "a T5 v1.1 text encoder",
       {has(kT5Key), has("encoder.block.0.layer.1.DenseReluDense.wi_1.weight")},
       "",
       &kT5xxl},
      {role, "a T5 v1.0 text encoder", {has(kT5Key)}, "Flux.1 takes T5 v1.1 XXL"},
      {role, "a Gemma text encoder", {has("model.layers.0.post_feedforward_layernorm.weight")}},
      {role, "a Qwen 3 text encoder", {has("model.layers.0.self_attn.q_norm.weight")}},
      {role, "a Qwen 2.5 text encoder", {has("model.layers.0.self_attn.k_proj.bias")}},
      {role, "a Llama text encoder", {has("model.layers.0.post_attention_layernorm.weight")}},
  };
}

}  // namespace

std::vector<FamilyRow> text_encoder_families() {
  return joined({clips(), language_models()});
}

}  // namespace mgpu
