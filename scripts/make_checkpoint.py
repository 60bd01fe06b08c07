#!/usr/bin/env python3
"""Writes a full-size Stable Diffusion checkpoint of random weights, in the layout of the files that users have.

usage: make_checkpoint.py sd15|sdxl FILE      (needs torch and safetensors; 2.1 and 6.9 GB in fp16, seconds on a GPU)

Names and shapes are those of the original checkpoints. The values keep activations finite: only speed and memory mean anything.
"""
import sys

import torch
from safetensors.torch import save_file

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Shapes(dict):
    """Tensor names with their shapes."""

    def linear(self, name, n_out, n_in, bias=True):
        self[name + ".weight"] = (n_out, n_in)
        if bias:
            self[name + ".bias"] = (n_out,)

    def conv(self, name, n_out, n_in, side=3):
        self[name + ".weight"], self[name + ".bias"] = (n_out, n_in, side, side), (n_out,)

    def norm(self, name, channels):
        self[name + ".weight"] = self[name + ".bias"] = (channels,)


def residual(s, name, n_in, n_out, embedding):
    s.norm(name + ".in_layers.0", n_in), s.conv(name + ".in_layers.2", n_out, n_in)
    s.linear(name + ".emb_layers.1", n_out, embedding)
    s.norm(name + ".out_layers.0", n_out), s.conv(name + ".out_layers.3", n_out, n_out)
    if n_in != n_out:
        s.conv(name + ".skip_connection", n_out, n_in, 1)


def transformer(s, name, channels, depth, context, is_linear):
    s.norm(name + ".norm", channels)
    for projection in (".proj_in", ".proj_out"):
        s.linear(name + projection, channels, channels) if is_linear else s.conv(name + projection, channels, channels, 1)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, width in ((".attn1", channels), (".attn2", context)):
            s.linear(block + attention + ".to_q", channels, channels, bias=False)
            s.linear(block + attention + ".to_k", channels, width, bias=False)
            s.linear(block + attention + ".to_v", channels, width, bias=False)
            s.linear(block + attention + ".to_out.0", channels, channels)
        s.linear(block + ".ff.net.0.proj", 8 * channels, channels), s.linear(block + ".ff.net.2", channels, 4 * channels)
        for norm in (".norm1", ".norm2", ".norm3"):
            s.norm(block + norm, channels)


def unet(mult, depths, middle, context, vector, is_linear, base=320):
    s, embedding = Shapes(), 4 * base
    s.linear("time_embed.0", embedding, base), s.linear("time_embed.2", embedding, embedding)
    if vector:
        s.linear("label_emb.0.0", embedding, vector), s.linear("label_emb.0.2", embedding, embedding)
    s.conv("input_blocks.0.0", base, 4)
    channels, skips, number = base, [base], 1
    for level, factor in enumerate(mult):
        for _ in range(2):
            residual(s, f"input_blocks.{number}.0", channels, factor * base, embedding)
            channels = factor * base
            if depths[level]:
                transformer(s, f"input_blocks.{number}.1", channels, depths[level], context, is_linear)
            skips.append(channels)
            number += 1
        if level + 1 < len(mult):
            s.conv(f"input_blocks.{number}.0.op", channels, channels)
            skips.append(channels)
            number += 1
    residual(s, "middle_block.0", channels, channels, embedding)
    transformer(s, "middle_block.1", channels, middle, context, is_linear)
    residual(s, "middle_block.2", channels, channels, embedding)
    number = 0
    for level in reversed(range(len(mult))):
        for i in range(3):
            residual(s, f"output_blocks.{number}.0", channels + skips.pop(), mult[level] * base, embedding)
            channels = mult[level] * base
            if depths[level]:
                transformer(s, f"output_blocks.{number}.1", channels, depths[level], context, is_linear)
            if level and i == 2:
                s.conv(f"output_blocks.{number}.{2 if depths[level] else 1}.conv", channels, channels)
            number += 1
    s.norm("out.0", channels), s.conv("out.2", 4, channels)
    return s


def vae(latent=4, base=128, mult=(1, 2, 4, 4)):
    s = Shapes()

    def block(name, n_in, n_out):
        s.norm(name + ".norm1", n_in), s.conv(name + ".conv1", n_out, n_in)
        s.norm(name + ".norm2", n_out), s.conv(name + ".conv2", n_out, n_out)
        if n_in != n_out:
            s.conv(name + ".nin_shortcut", n_out, n_in, 1)

    def middle(name, channels):
        block(name + ".mid.block_1", channels, channels), block(name + ".mid.block_2", channels, channels)
        s.norm(name + ".mid.attn_1.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            s.conv(f"{name}.mid.attn_1.{part}", channels, channels, 1)

    widest = mult[-1] * base
    s.conv("encoder.conv_in", base, 3)
    channels = base
    for level, factor in enumerate(mult):
        for i in range(2):
            block(f"encoder.down.{level}.block.{i}", channels, factor * base)
            channels = factor * base
        if level + 1 < len(mult):
            s.conv(f"encoder.down.{level}.downsample.conv", channels, channels)
    middle("encoder", widest), s.norm("encoder.norm_out", widest), s.conv("encoder.conv_out", 2 * latent, widest)
    s.conv("quant_conv", 2 * latent, 2 * latent, 1), s.conv("post_quant_conv", latent, latent, 1)
    s.conv("decoder.conv_in", widest, latent), middle("decoder", widest)
    for level in reversed(range(len(mult))):
        for i in range(3):
            block(f"decoder.up.{level}.block.{i}", channels, mult[level] * base)
            channels = mult[level] * base
        if level:
            s.conv(f"decoder.up.{level}.upsample.conv", channels, channels)
    s.norm("decoder.norm_out", base), s.conv("decoder.conv_out", 3, base)
    return s


def clip_l(width=768, layers=12):
    s = Shapes({"embeddings.token_embedding.weight": (49408, width), "embeddings.position_embedding.weight": (77, width)})
    for i in range(layers):
        layer = f"encoder.layers.{i}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            s.linear(f"{layer}self_attn.{part}", width, width)
        s.linear(layer + "mlp.fc1", 4 * width, width), s.linear(layer + "mlp.fc2", width, 4 * width)
        s.norm(layer + "layer_norm1", width), s.norm(layer + "layer_norm2", width)
    s.norm("final_layer_norm", width)
    return s


def clip_g(width=1280, layers=32):
    s = Shapes({"token_embedding.weight": (49408, width), "positional_embedding": (77, width), "text_projection": (width, width)})
    for i in range(layers):
        layer = f"transformer.resblocks.{i}."
        s[layer + "attn.in_proj_weight"], s[layer + "attn.in_proj_bias"] = (3 * width, width), (3 * width,)
        s.linear(layer + "attn.out_proj", width, width)
        s.linear(layer + "mlp.c_fc", 4 * width, width), s.linear(layer + "mlp.c_proj", width, 4 * width)
        s.norm(layer + "ln_1", width), s.norm(layer + "ln_2", width)
    s.norm("ln_final", width)
    return s


KINDS = {
    "sd15": {"model.diffusion_model.": lambda: unet((1, 2, 4, 4), (1, 1, 1, 0), 1, 768, 0, False),
             "cond_stage_model.transformer.text_model.": clip_l, "first_stage_model.": vae},
    "sdxl": {"model.diffusion_model.": lambda: unet((1, 2, 4), (0, 2, 10), 10, 2048, 2816, True),
             "conditioner.embedders.0.transformer.text_model.": clip_l, "conditioner.embedders.1.model.": clip_g,
             "first_stage_model.": vae},
}


def drawn(name, shape, generator):
    if len(shape) == 1:
        is_scale = name.endswith("weight")
        return torch.full(shape, 1.0 if is_scale else 0.0, dtype=torch.half)
    fan_in = torch.Size(shape[1:]).numel()
    return (torch.randn(shape, generator=generator, device=DEVICE) * fan_in**-0.5).half().cpu()


def main():
    kind, path = sys.argv[1:]
    generator = torch.Generator(DEVICE).manual_seed(0)
    save_file({prefix + name: drawn(name, shape, generator) for prefix, shapes in KINDS[kind].items()
               for name, shape in shapes().items()}, path)


if __name__ == "__main__":
    main()
