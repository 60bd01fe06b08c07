#!/usr/bin/env python3
"""Writes what diffusers' UNets of every Stable Diffusion family's shape compute in fp32, under the original (LDM) key names.

usage: make_unet_goldens.py [--out DIR]        (environment: golden_requirements.txt)

unet_models.json        For each model its tensors' names and shapes; their values are drawn by drawn_weights.py.
unet_cases.safetensors  fp32. For each case N: MODEL.N.x [1, C, h, w], .timestep [1], .context [1, tokens, width],
                        .vector [1, V] (models that take one) and the expected .output [1, 4, h, w].
"""
import argparse
import json
import os

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from drawn_weights import draw

HERE = os.path.dirname(os.path.abspath(__file__))
POOLED = 64  # width of the pooled text in SDXL's vector

# Block by block as the real ones; only widths are small. Heads: 8 of any width in SD 1, later 64 wide. `depths` of the
# transformers a level, 0 for none. Contexts are those of a CLIP-L 128 wide and a CLIP-G and CLIP-H 64 wide.
SDXL = dict(widths=(32, 64, 128), depths=(0, 1, 2), linear=True, context=192, sizes=6)
MODELS = {
    "sd1": dict(widths=(32, 64, 64, 64), depths=(1, 1, 1, 0), linear=False, context=128),
    "sd1_inpaint": dict(widths=(32, 32, 32, 64), depths=(1, 1, 1, 0), linear=False, context=128, channels=9),
    "sd2": dict(widths=(64, 128, 64, 64), depths=(1, 1, 1, 0), linear=True, context=64),
    "sdxl": SDXL,
    "sdxl_inpaint": SDXL | dict(channels=9),
    "refiner": dict(widths=(32, 64, 64, 64), depths=(0, 2, 2, 0), linear=True, context=64, sizes=5),
    "sd1_faint": dict(widths=(32, 32, 32, 64), depths=(1, 1, 1, 0), linear=False, context=128, faint=True),
    "koala": dict(widths=(32, 64, 128), depths=(0, 1, 2), linear=True, context=192, sizes=6, layers=1, middle=False),
}
# Of a faint model: what writes to the residual stream is 64 times weaker, so that the epsilons of the norms show.
FAINT = ("input_blocks.0.0.", ".out_layers.3.", ".proj_out.")
CASES = [  # latent height and width, timestep, text tokens
    (16, 16, 999, 77),
    (12, 20, 0, 13),
    (9, 15, 521, 100),
]


def reference_model(widths, depths, linear, context, sizes=0, channels=4, layers=2, middle=True, faint=False):
    """diffusers' UNet. Its `attention_head_dim` is the number of heads."""
    blocks = lambda way: tuple(f"CrossAttn{way}Block2D" if d else f"{way}Block2D" for d in depths)
    vector = dict(addition_embed_type="text_time", addition_time_embed_dim=256,
                  projection_class_embeddings_input_dim=POOLED + 256 * sizes) if sizes else {}
    model = UNet2DConditionModel(
        in_channels=channels, block_out_channels=widths, layers_per_block=layers, down_block_types=blocks("Down"),
        up_block_types=blocks("Up")[::-1], mid_block_type="UNetMidBlock2DCrossAttn" if middle else None,
        transformer_layers_per_block=tuple(max(d, 1) for d in depths), cross_attention_dim=context,
        attention_head_dim=tuple(max(w // 64, 1) for w in widths) if linear else 8, use_linear_projection=linear, **vector)
    return model.eval()


def residual(ours, theirs):
    for a, b in (("in_layers.0", "norm1"), ("in_layers.2", "conv1"), ("emb_layers.1", "time_emb_proj"),
                 ("out_layers.0", "norm2"), ("out_layers.3", "conv2"), ("skip_connection", "conv_shortcut")):
        yield f"{theirs}.{b}.", f"{ours}.{a}."


def original_names(depths, layers=2, middle=True, **_):
    """Pairs of prefixes, diffusers' and the original: blocks are numbered through, level after level."""
    yield from (("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."), ("conv_out.", "out.2."),
                ("time_embedding.linear_1.", "time_embed.0."), ("time_embedding.linear_2.", "time_embed.2."),
                ("add_embedding.linear_1.", "label_emb.0.0."), ("add_embedding.linear_2.", "label_emb.0.2."))
    n, last = 1, len(depths) - 1
    for level, depth in enumerate(depths):
        for i in range(layers):
            yield from residual(f"input_blocks.{n}.0", f"down_blocks.{level}.resnets.{i}")
            yield f"down_blocks.{level}.attentions.{i}.", f"input_blocks.{n}.1."
            n += 1
        if level < last:
            yield f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{n}.0.op."
            n += 1
    if middle:
        yield from residual("middle_block.0", "mid_block.resnets.0")
        yield "mid_block.attentions.0.", "middle_block.1."
        yield from residual("middle_block.2", "mid_block.resnets.1")
    n = 0
    for level, depth in enumerate(depths[::-1]):
        for i in range(layers + 1):
            yield from residual(f"output_blocks.{n}.0", f"up_blocks.{level}.resnets.{i}")
            yield f"up_blocks.{level}.attentions.{i}.", f"output_blocks.{n}.1."
            if i == layers and level < last:
                yield f"up_blocks.{level}.upsamplers.0.conv.", f"output_blocks.{n}.{2 if depth else 1}.conv."
            n += 1


def weight(name, shape, faint=False, **_):
    tensor = torch.from_numpy(draw(name, shape))
    return tensor / 64 if faint and any(part in name for part in FAINT) else tensor


def rename(tensors, options):
    """Original name -> (diffusers' name, shape); every tensor must be named."""
    pairs, out = list(original_names(**options)), {}
    for theirs, tensor in tensors.items():
        (begin, ours), = [(t, o) for t, o in pairs if theirs.startswith(t)]
        out[ours + theirs[len(begin):]] = (theirs, list(tensor.shape))
    assert len(out) == len(tensors)
    return out


@torch.no_grad()
def run(model, channels, context, sizes, case, generator):
    """Inputs drawn, and what the model makes of them."""
    height, width, timestep, tokens = case
    x = torch.randn(1, channels, height, width, generator=generator)
    out = {"x": x, "timestep": torch.tensor([float(timestep)]),
           "context": torch.randn(1, tokens, context, generator=generator)}
    extra = None
    if sizes:
        extra = {"text_embeds": torch.randn(1, POOLED, generator=generator),
                 "time_ids": torch.tensor([[8.0 * height, 8.0 * width, 0.0, 0.0, 8.0 * height, 8.0 * width][:sizes]])}
        keep = lambda module, inputs: out.update(vector=inputs[0].clone())
        handle = model.add_embedding.register_forward_pre_hook(keep)
    out["output"] = model(x, timestep, out["context"], added_cond_kwargs=extra).sample
    if sizes:
        handle.remove()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"{HERE}/goldens")
    out_dir = parser.parse_args().out
    models, cases, generator = {}, {}, torch.Generator().manual_seed(31)
    for name, options in MODELS.items():
        model = reference_model(**options)
        names = rename(model.state_dict(), options)
        weights = {theirs: weight(ours, shape, **options) for ours, (theirs, shape) in names.items()}
        model.load_state_dict(weights, strict=True)
        models[name] = {ours: shape for ours, (_, shape) in sorted(names.items())}
        for i, case in enumerate(CASES):
            made = run(model, options.get("channels", 4), options["context"], options.get("sizes", 0), case, generator)
            cases |= {f"{name}.{i}.{key}": value.contiguous() for key, value in made.items()}
            print(f"{name} {case}: output {made['output'].std():.3f}, {sum(t.numel() for t in weights.values())} weights")
    lines = [json.dumps(name) + ": " + json.dumps(tensors, separators=(",", ":")) for name, tensors in models.items()]
    with open(f"{out_dir}/unet_models.json", "w") as f:
        f.write("{" + ",\n".join(lines) + "}\n")
    save_file(cases, f"{out_dir}/unet_cases.safetensors")


if __name__ == "__main__":
    main()
