#!/usr/bin/env python3
"""Writes two small autoencoders with the original (ldm) key names, and what diffusers computes with them in fp32.

usage: make_vae_goldens.py [--out DIR]        (environment: golden_requirements.txt)

vae_flux.safetensors   16 latent channels, 4 levels (8x), 1 residual block a level, no quant convolutions, fp16
vae_sd.safetensors     4 latent channels, 2 levels (2x), 2 residual blocks a level, quant and post-quant convolutions,
                       all keys under first_stage_model., bf16
vae_cases.safetensors  fp32, no latent scale or shift. For each case N either N.latent [b, c, h, w] and the decoded
                       N.image [b, 3, H, W], about -1..1, or N.pixels [b, 3, H, W] and the encoder's N.mean and
                       N.logvar [b, c, h, w]
"""
import argparse
import os
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file

from make_flux_goldens import HERE, Draw


@dataclass
class Sizes:
    latent: int
    multipliers: tuple
    blocks: int
    quant: bool
    base: int = 32


MODELS = {  # name: (sizes, stored type, seed of the weights, prefix of the keys)
    "vae_flux": (Sizes(latent=16, multipliers=(1, 1, 2, 2), blocks=1, quant=False), torch.float16, 21, ""),
    "vae_sd": (Sizes(latent=4, multipliers=(1, 2), blocks=2, quant=True), torch.bfloat16, 22, "first_stage_model."),
}
DECODES = [("vae_flux", 1, 5, 7), ("vae_flux", 2, 4, 3), ("vae_flux", 1, 1, 2), ("vae_sd", 1, 9, 13)]  # model, b, h, w
ENCODES = [("vae_flux", 1, 56, 40), ("vae_flux", 2, 16, 24), ("vae_sd", 1, 22, 14)]


class DrawConvolutions(Draw):
    def norm(self, name, channels):
        self.normal(f"{name}.weight", (channels,), 0.3, shift=1.0)
        self.normal(f"{name}.bias", (channels,), 0.2)

    def conv(self, name, n_out, n_in, kernel=3, gain=1.0):
        self.normal(f"{name}.weight", (n_out, n_in, kernel, kernel), gain / (n_in * kernel**2) ** 0.5)
        self.normal(f"{name}.bias", (n_out,), 0.1)

    def residual(self, name, n_in, n_out):
        self.norm(f"{name}.norm1", n_in)
        self.conv(f"{name}.conv1", n_out, n_in)
        self.norm(f"{name}.norm2", n_out)
        self.conv(f"{name}.conv2", n_out, n_out)
        if n_in != n_out:
            self.conv(f"{name}.nin_shortcut", n_out, n_in, kernel=1)

    def middle(self, name, channels):
        self.residual(f"{name}.block_1", channels, channels)
        self.norm(f"{name}.attn_1.norm", channels)
        for part, gain in (("q", 2.0), ("k", 2.0), ("v", 1.0), ("proj_out", 1.0)):
            self.conv(f"{name}.attn_1.{part}", channels, channels, kernel=1, gain=gain)
        self.residual(f"{name}.block_2", channels, channels)


def draw_vae(s, seed):
    """A state dictionary under the original key names."""
    d = DrawConvolutions(seed)
    widths = [s.base * m for m in s.multipliers]

    channels = s.base
    d.conv("encoder.conv_in", channels, 3)
    for level, width in enumerate(widths):
        for block in range(s.blocks):
            d.residual(f"encoder.down.{level}.block.{block}", channels, width)
            channels = width
        if level + 1 < len(widths):
            d.conv(f"encoder.down.{level}.downsample.conv", channels, channels)
    d.middle("encoder.mid", channels)
    d.norm("encoder.norm_out", channels)
    d.conv("encoder.conv_out", 2 * s.latent, channels)

    d.conv("decoder.conv_in", channels, s.latent)
    d.middle("decoder.mid", channels)
    for level, width in reversed(list(enumerate(widths))):
        for block in range(s.blocks + 1):
            d.residual(f"decoder.up.{level}.block.{block}", channels, width)
            channels = width
        if level:
            d.conv(f"decoder.up.{level}.upsample.conv", channels, channels)
    d.norm("decoder.norm_out", channels)
    d.conv("decoder.conv_out", 3, channels, gain=0.8)
    if s.quant:
        d.conv("quant_conv", 2 * s.latent, 2 * s.latent, kernel=1)
        d.conv("post_quant_conv", s.latent, s.latent, kernel=1)
    return d.tensors


def reference_model(path, s):
    """diffusers' autoencoder with the weights as stored, widened to fp32."""
    return model_of({k.removeprefix("first_stage_model."): v.float() for k, v in load_file(path).items()}, s)


def model_of(tensors, s):
    """diffusers' autoencoder of these tensors under the original names, which diffusers itself converts."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    levels = len(s.multipliers)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(s.base * m for m in s.multipliers), layers_per_block=s.blocks,
        latent_channels=s.latent, use_quant_conv=s.quant, use_post_quant_conv=s.quant)
    model.load_state_dict(convert_ldm_vae_checkpoint(tensors, model.config), strict=True)
    return model.eval()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"{HERE}/goldens")
    out_dir = parser.parse_args().out
    os.makedirs(out_dir, exist_ok=True)

    for name, (sizes, dtype, seed, prefix) in MODELS.items():
        tensors = {prefix + k: v.to(dtype).contiguous() for k, v in draw_vae(sizes, seed).items()}
        save_file(tensors, f"{out_dir}/{name}.safetensors")
    models = {name: reference_model(f"{out_dir}/{name}.safetensors", row[0]) for name, row in MODELS.items()}

    cases, generator = {}, torch.Generator().manual_seed(23)
    for index, (name, b, h, w) in enumerate(DECODES):
        latent = torch.randn(b, MODELS[name][0].latent, h, w, generator=generator)
        image = models[name].decode(latent, return_dict=False)[0]
        cases |= {f"{name}.decode.{index}.latent": latent, f"{name}.decode.{index}.image": image}
        print(f"{name} decode: mean {image.mean():.3f}, standard deviation {image.std():.3f}")
    for index, (name, b, h, w) in enumerate(ENCODES):
        pixels = torch.rand(b, 3, h, w, generator=generator) * 2 - 1
        posterior = models[name].encode(pixels, return_dict=False)[0]
        cases |= {f"{name}.encode.{index}.pixels": pixels, f"{name}.encode.{index}.mean": posterior.mode(),
                  f"{name}.encode.{index}.logvar": posterior.logvar}
        print(f"{name} encode: mean's standard deviation {posterior.mode().std():.3f}")
    save_file({k: v.contiguous() for k, v in cases.items()}, f"{out_dir}/vae_cases.safetensors")


if __name__ == "__main__":
    main()
