// What tells the families apart is public knowledge of their layouts; the same names decide in ComfyUI
// (comfy/model_detection.py, comfy/sd.py).

#include "core/family_tables.h"
#include "core/signs.h"

namespace mgpu {

using namespace signs;

namespace {

constexpr std::string_view kPlain = "use the model's bf16 or fp8 release";

std::vector<FamilyRow> adapters() {
  const Role* role = &kOtherRole;
  return {
      {role, "a LoRA", {ends(".lora_down.weight")}},
      {role, "a LoRA", {ends(".lora_A.weight")}},
      {role, "a LoRA", {ends(".lora.down.weight")}},
      {role, "a LoKr adapter", {ends(".lokr_w1")}},
      {role, "a LoHa adapter", {ends(".hada_w1_a")}},
      explaining({role, "a Flux.1 ControlNet", {has("controlnet_x_embedder.weight")}}),
      explaining({role, "a Flux.1 ControlNet", {has("controlnet_blocks.0.weight")}}),
      explaining({role, "a ControlNet", {has("input_hint_block.0.weight")}}),
      {role, "a ControlNet", {has("control_model.input_hint_block.0.weight")}},
      {role, "a ControlNet", {has("controlnet_cond_embedding.conv_in.weight")}},
      {role, "a Flux.1 Redux adapter", {has("redux_up.weight")}},
      {role, "a textual inversion embedding", {has("emb_params")}},
      {role, "an upscaler", {has("conv_first.weight")}},
      {role, "an upscaler", {has("model.1.sub.0.RDB1.conv1.0.weight")}},
  };
}

std::vector<FamilyRow> quantised() {
  const auto row = [](std::string_view what, std::string_view mark) {
    return explaining({&kOtherRole, what, {ends(mark)}, kPlain});
  };
  return {
      row("a file of weights quantised to 4 bits by bitsandbytes (NF4)", ".quant_state.bitsandbytes__nf4"),
      row("a file of weights quantised to 4 bits by bitsandbytes (FP4)", ".quant_state.bitsandbytes__fp4"),
      row("a file of weights quantised by Nunchaku (SVDQuant)", ".wscales"),
      row("a file of weights quantised to NVFP4", ".weight_scale_2"),
  };
}

}  // namespace

std::vector<FamilyRow> other_files() {
  return joined({adapters(), quantised()});
}

}  // namespace mgpu
