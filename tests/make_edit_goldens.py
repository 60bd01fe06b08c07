#!/usr/bin/env python3
"""Renders jobs that start from pictures and are told several things at once, with reference code: img2img, inpainting
and regional prompts. Models as in make_picture_goldens.py; the arithmetic around them is ComfyUI's, in fp32 on the CPU
(comfy/samplers.py: KSampler.set_steps, KSamplerX0Inpaint, calc_cond_batch).

usage: make_edit_goldens.py [--out DIR]    (environment: golden_requirements.txt; after make_picture_goldens.py)

edit_init.png (RGBA, 100x70: more than a multiple of 16), edit_mask.png (grey, soft, of that size), edit_left.png (grey,
24x16), edit_right.png (palette, 96x64)    what the job starts from and is held to
edit.yaml                                  the job
edit-INDEX-SEED.png                        the pictures, under the names that the job gives them
"""
import argparse
import math

import numpy as np
import torch
from PIL import Image

import make_flux_goldens as flux
import make_vae_goldens as vae
from make_flux_goldens import HERE
from make_picture_goldens import Encoders, simple_sigmas

MU, LEVELS, GUIDANCE = 1.15, 10000, 3.5
SCALE, SHIFT = 0.3611, 0.1159
MULTIPLE = 16

IMAGES = [
    {"prompt": "a red house beside a lake", "seed": 11, "batch": 2, "steps": 5, "denoise": 0.6,
     "init": "edit_init.png"},
    {"prompt": "a small boat on dark water", "negative": "bright sun", "seed": 12, "steps": 4, "denoise": 0.8, "cfg": 2.0,
     "init": "edit_init.png", "mask": "edit_mask.png"},
    {"prompt": "hills at night", "negative": "snow", "seed": 13, "steps": 6, "cfg": 2.0, "width": 96, "height": 64,
     "conditions": [
         {"prompt": "a white horse", "mask": "edit_left.png", "strength": 0.8, "start": 0.0, "end": 0.6},
         {"prompt": "a yellow sun", "mask": "edit_right.png", "strength": 1.5, "start": 0.3, "end": 1.0}]},
]


def draw_pictures(out_dir):
    y, x = np.mgrid[0:70, 0:100]
    waves = [128 + 100 * np.sin(x / (9 + 4 * i) + i) * np.cos(y / (7 + 3 * i)) for i in range(3)]
    Image.fromarray(np.stack([*waves, 255 - 2 * x], axis=-1).astype(np.uint8), "RGBA").save(f"{out_dir}/edit_init.png")
    ring = np.clip(1.6 - np.hypot(x - 55, y - 30) / 25, 0, 1)
    Image.fromarray((255 * ring).astype(np.uint8), "L").save(f"{out_dir}/edit_mask.png")
    fade = np.clip(np.linspace(1.5, -0.5, 24), 0, 1)[None].repeat(16, axis=0)
    Image.fromarray((255 * fade).astype(np.uint8), "L").save(f"{out_dir}/edit_left.png")
    steps = (np.mgrid[0:64, 0:96][1] // 32).astype(np.uint8)
    right = Image.fromarray(steps, "P")
    right.putpalette([0, 9, 99, 120, 9, 99, 255, 9, 99])
    right.save(f"{out_dir}/edit_right.png")


def pixels(path, size=None):
    """A picture as LoadImage reads it: [1, 3, H, W], its middle of `size` (width, height)."""
    image = torch.from_numpy(np.array(Image.open(path).convert("RGB")).astype(np.float32) / 255).permute(2, 0, 1)[None]
    if size is None:
        return image
    left, top = (image.shape[3] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, :, top:top + size[1], left:left + size[0]]


def at_latent_size(mask, size):
    return torch.nn.functional.interpolate(mask[:, :1], size=(size[1] // 8, size[0] // 8), mode="bilinear")


def sigma_at(share):
    """ModelSamplingFlux.percent_to_sigma."""
    if share <= 0 or share >= 1:
        return 1.0 if share <= 0 else 0.0
    return math.exp(MU) / (math.exp(MU) + (1 / (1 - share) - 1))


class Renderer:
    def __init__(self, out_dir):
        self.folder = out_dir
        self.encoders = Encoders(out_dir)
        self.autoencoder = vae.reference_model(f"{out_dir}/vae_flux.safetensors", vae.MODELS["vae_flux"][0])
        self.transformer = flux.reference_model(f"{out_dir}/flux_dev.safetensors", flux.MODELS["flux_dev"][0])

    def denoise(self, x, sigma, told):
        out = [flux.velocity(self.transformer, one, told["context"], told["pooled"], sigma, GUIDANCE) for one in x.split(1)]
        return x - sigma * torch.cat(out)

    def size_of(self, item):
        if "init" not in item:
            return item["width"], item["height"]
        return tuple(n // MULTIPLE * MULTIPLE for n in Image.open(f"{self.folder}/{item['init']}").size)

    def positives(self, item, size):
        """-> (conditioning, weight, highest sigma, lowest sigma) of each."""
        out = [(self.encoders.encode(item["prompt"]), torch.ones(1, 1, 1, 1), 1.0, 0.0)]
        for c in item.get("conditions", []):
            mask = at_latent_size(pixels(f"{self.folder}/{c['mask']}"), size)
            out.append((self.encoders.encode(c["prompt"]), mask * c["strength"], sigma_at(c["start"]), sigma_at(c["end"])))
        return out

    def start(self, item, size):
        """-> the init image's latent (zeros where there is none) and the mask or None, at the latent's size."""
        if "init" not in item:
            return torch.zeros(1, 16, size[1] // 8, size[0] // 8), None
        image = pixels(f"{self.folder}/{item['init']}", size)
        latent = (self.autoencoder.encode(image * 2 - 1).latent_dist.mode() - SHIFT) * SCALE
        # ComfyUI's SetLatentNoiseMask scales the whole mask onto the latent, also where the image is cut.
        mask = at_latent_size(pixels(f"{self.folder}/{item['mask']}"), size) if "mask" in item else None
        return latent, mask

    def render(self, item):
        """-> its pictures [height, width, 3] in 8 bits."""
        size, cfg, steps, share = self.size_of(item), item.get("cfg", 1.0), item["steps"], item.get("denoise", 1.0)
        positives, negative = self.positives(item, size), self.encoders.encode(item.get("negative", ""))
        latent, mask = self.start(item, size)
        sigmas = simple_sigmas(MU, LEVELS, steps if share == 1.0 else int(steps / share))[-(steps + 1):]
        noise = torch.randn(item.get("batch", 1), 16, size[1] // 8, size[0] // 8,
                            generator=torch.Generator().manual_seed(item["seed"]))

        def guided(x, sigma):
            total, weights = torch.zeros_like(x), torch.full_like(x, 1e-37)
            for told, weight, first, last in positives:
                if last <= sigma <= first:
                    total += self.denoise(x, sigma, told) * weight
                    weights += weight
            denoised = total / weights
            if cfg != 1.0:
                uncond = self.denoise(x, sigma, negative)
                denoised = uncond + (denoised - uncond) * cfg
            return denoised

        def kept(x, sigma):
            if mask is None:
                return guided(x, sigma)
            x = x * mask + (sigma * noise + (1 - sigma) * latent) * (1 - mask)
            return guided(x, sigma) * mask + latent * (1 - mask)

        x = sigmas[0] * noise + (1 - sigmas[0]) * latent
        for sigma, following in zip(sigmas, sigmas[1:]):
            x = x + (x - kept(x, sigma)) / sigma * (following - sigma)
        for one in x.split(1):
            image = self.autoencoder.decode(one / SCALE + SHIFT, return_dict=False)[0]
            image = ((image + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0).numpy()
            yield (np.float32(255) * image).astype(np.uint8)


def job_text():
    """The job as a user would write it."""
    lines = [
        "# Made by make_edit_goldens.py.",
        "checkpoint: flux_dev.safetensors",
        "encoders: {clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}",
        "vae: vae_flux.safetensors",
        "tokenizers: {clip: picture_merges.txt, t5xxl: picture_spiece.model}",
        "dtype: fp32",
        "gpu_ids: [cpu]",
        f"sampler: {{name: euler, scheduler: simple, guidance: {GUIDANCE}}}",
        "images:",
    ]
    for item in IMAGES:
        lines += [f"  - prompt: \"{item['prompt']}\"", f"    seed: {item['seed']}"]
        lines += [f"    {key}: {item[key]}" for key in ("negative", "width", "height", "batch", "mask") if key in item]
        lines += [f"    init_image: {item['init']}"] if "init" in item else []
        lines += ["    conditions:"] if "conditions" in item else []
        lines += [f"      - {{{', '.join(f'{k}: {v}' for k, v in c.items())}}}" for c in item.get("conditions", [])]
        lines += [f"    sampler: {{steps: {item['steps']}, cfg: {item.get('cfg', 1.0)}, denoise: {item.get('denoise', 1.0)}}}"]
    return "\n".join(lines + ["output:", "  directory: out", ""])


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"{HERE}/goldens")
    out_dir = parser.parse_args().out

    draw_pictures(out_dir)
    with open(f"{out_dir}/edit.yaml", "w", encoding="utf-8") as f:
        f.write(job_text())
    renderer, index = Renderer(out_dir), 0
    for item in IMAGES:
        for picture in renderer.render(item):
            Image.fromarray(picture).save(f"{out_dir}/edit-{index:04}-{item['seed']}.png")
            print(f"{index}: mean {picture.mean():.0f}, deviation {picture.std():.0f}")
            index += 1


if __name__ == "__main__":
    main()
