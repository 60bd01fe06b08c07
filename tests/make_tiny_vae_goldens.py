#!/usr/bin/env python3
"""Writes two small tiny autoencoders (TAESD's layout), and what diffusers computes with them in fp32.

usage: make_tiny_vae_goldens.py [--out DIR]        (environment: golden_requirements.txt)

tiny_vae_flux.safetensors   16 latent channels, both coders named as ComfyUI joins them, its vae_scale and vae_shift, fp16
tiny_vae_sd.safetensors     4 latent channels, TAESD's numbers of blocks, diffusers' names, bf16
tiny_vae_cases.safetensors  fp32. For each case N either N.latent [b, c, h, w], scaled as the diffusion model's, and the
                            decoded N.image [b, 3, H, W], about -1..1, or N.pixels [b, 3, H, W] and the encoded N.latent
"""
import argparse
import os

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from make_flux_goldens import HERE, Draw

CHANNELS = 8
MODELS = {  # name: (latent channels, blocks of the decoder's levels, of the encoder's, stored type, seed)
    "tiny_vae_flux": (16, (2, 1, 3, 1), (1, 2, 1, 2), torch.float16, 41),
    "tiny_vae_sd": (4, (3, 3, 3, 1), (1, 3, 3, 3), torch.bfloat16, 42),
}
DECODES = [("tiny_vae_flux", 5, 7), ("tiny_vae_flux", 1, 2), ("tiny_vae_sd", 6, 3)]  # model, h, w
ENCODES = [("tiny_vae_flux", 24, 40), ("tiny_vae_sd", 32, 16)]


def draw_model(latent, decoder, encoder, dtype, seed):
    """diffusers' model with drawn weights, rounded as they are stored."""
    model = AutoencoderTiny(latent_channels=latent, num_decoder_blocks=decoder, num_encoder_blocks=encoder,
                            decoder_block_out_channels=(CHANNELS,) * 4, encoder_block_out_channels=(CHANNELS,) * 4)
    draw = Draw(seed)
    for name, value in model.state_dict().items():
        draw.normal(name, value.shape, 1.2 / value[0].numel() ** 0.5 if value.dim() == 4 else 0.1)
    last = f"decoder.layers.{len(model.decoder.layers) - 1}"
    draw.tensors[f"{last}.weight"] *= 0.2  # pictures are 0..1
    draw.tensors[f"{last}.bias"] += 0.5
    model.load_state_dict({k: v.to(dtype).float() for k, v in draw.tensors.items()})
    return model.eval()


def joined_names(tensors):
    """ComfyUI's names: the numbers of taesd.py's lists, where the limits of the latent are the decoder's layer 0."""
    out = {"vae_scale": torch.tensor(0.3611), "vae_shift": torch.tensor(0.1159)}
    for name, value in tensors.items():
        coder, _, number, rest = name.split(".", 3)
        out[f"taesd_{coder}.{int(number) + (coder == 'decoder')}.{rest}"] = value
    return out


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"{HERE}/goldens")
    out_dir = parser.parse_args().out
    os.makedirs(out_dir, exist_ok=True)

    models = {}
    for name, row in MODELS.items():
        models[name] = draw_model(*row)
        tensors = {k: v.to(row[3]).contiguous() for k, v in models[name].state_dict().items()}
        save_file(joined_names(tensors) if name == "tiny_vae_flux" else tensors, f"{out_dir}/{name}.safetensors")

    cases, generator = {}, torch.Generator().manual_seed(43)
    for index, (name, h, w) in enumerate(DECODES):
        latent = 2 * torch.randn(1, MODELS[name][0], h, w, generator=generator)
        image = models[name].decode(latent).sample
        cases |= {f"{name}.decode.{index}.latent": latent, f"{name}.decode.{index}.image": image}
        print(f"{name} decode: mean {image.mean():.3f}, standard deviation {image.std():.3f}")
    for index, (name, h, w) in enumerate(ENCODES):
        pixels = torch.rand(1, 3, h, w, generator=generator) * 2 - 1
        latent = models[name].encode(pixels).latents
        cases |= {f"{name}.encode.{index}.pixels": pixels, f"{name}.encode.{index}.latent": latent}
        print(f"{name} encode: mean {latent.mean():.3f}, standard deviation {latent.std():.3f}")
    save_file({k: v.contiguous() for k, v in cases.items()}, f"{out_dir}/tiny_vae_cases.safetensors")


if __name__ == "__main__":
    main()
