// What tells the families apart is public knowledge of their layouts; the same names decide in ComfyUI
// (comfy/model_detection.py, comfy/sd.py).

#include "core/family_tables.h"
#include "core/signs.h"

namespace mgpu {

using namespace signs;

namespace {

std::vector<FamilyRow> transformers() {
  const Role* role = &kDiffusionRole;
  return {
      {role,
       "a Flux.1 transformer with diffusers' tensor names",
       {has("single_transformer_blocks.0.norm.linear.weight"), has("x_embedder.weight")},
       kUseSingleFile},
      {role,
       "a Stable Diffusion 3 transformer with diffusers' tensor names",
       {has("transformer_blocks.0.norm1_context.linear.weight"), has("pos_embed.proj.weight")},
       kUseSingleFile},
      {role, "a Stable Diffusion 3.5 checkpoint", {has("joint_blocks.0.x_block.attn.ln_q.weight")}},
      {role, "a Stable Diffusion 3 checkpoint", {has("joint_blocks.0.context_block.attn.qkv.weight")}},
      {role, "a Stable Cascade checkpoint", {has("clf.1.weight")}},
      {role, "a Stable Audio checkpoint", {has("transformer.rotary_pos_emb.inv_freq")}},
      {role, "an AuraFlow checkpoint", {has("double_layers.0.attn.w1q.weight")}},
      {role, "a Hunyuan-DiT checkpoint", {has("mlp_t5.0.weight")}},
      {role, "a Mochi checkpoint", {has("t5_yproj.weight")}},
      {role,
       "a PixArt transformer with diffusers' tensor names",
       {has("adaln_single.emb.timestep_embedder.linear_1.bias"), has("pos_embed.proj.bias")},
       kUseSingleFile},
      {role, "an LTX-Video checkpoint", {has("adaln_single.emb.timestep_embedder.linear_1.bias")}},
      {role, "an ACE-Step checkpoint", {has("genre_embedder.weight")}},
      {role, "a PixArt checkpoint", {has("t_block.1.weight")}},
      {role, "a Cosmos checkpoint", {has("blocks.block0.blocks.0.block.attn.to_q.0.weight")}},
      {role, "a Cosmos-Predict2 checkpoint", {has("blocks.0.mlp.layer1.weight")}},
      {role,
       "a Z-Image checkpoint",
       {has("noise_refiner.0.attention.k_norm.weight"), dim("cap_embedder.1.weight", 0, 3840)}},
      {role, "a Lumina 2 checkpoint", {has("noise_refiner.0.attention.k_norm.weight"), has("cap_embedder.1.weight")}},
      {role, "a CogVideoX checkpoint", {has("blocks.0.norm1.linear.weight")}},
      {role, "a Wan checkpoint", {has("head.modulation")}},
      {role, "a HiDream checkpoint", {has("caption_projection.0.linear.weight")}},
      {role, "an OmniGen2 checkpoint", {has("time_caption_embed.timestep_embedder.linear_1.bias")}},
      {role, "a Qwen-Image checkpoint", {has("txt_norm.weight"), has("transformer_blocks.0.img_mod.1.weight")}},
  };
}

}  // namespace

std::vector<FamilyRow> other_families() {
  return transformers();
}

}  // namespace mgpu
