#!/usr/bin/env python3
"""Renders whole jobs of the UNet families with reference code: encoders of transformers, UNets and autoencoder of diffusers;
text weights, noise, sigmas, timesteps, guidance, sampler steps and 8 bits as ComfyUI has them, all in fp32 on the CPU.

usage: make_unet_picture_goldens.py [--out DIR]    (environment: golden_requirements.txt; after make_edit_goldens.py and
                                                    make_unet_goldens.py)

unet_picture_parts.json               names and shapes of what checkpoints hold beside the UNets of unet_models.json: clip_l
                                      (transformers' names), open_clip (G and H), vae; values are drawn by drawn_weights.py
unet_picture_FAMILY.yaml              the jobs; FAMILY.safetensors is an all-in-one checkpoint, which the test writes
unet_picture_FAMILY-INDEX-SEED.png    the pictures, under the names that the jobs give them

Read in ComfyUI for what they do: comfy/samplers.py, model_base.py, model_sampling.py, k_diffusion/sampling.py, sd1_clip.py,
nodes.py (InpaintModelConditioning).
"""
import argparse
import json
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

import make_unet_goldens as unets
import make_vae_goldens as vae
from drawn_weights import draw
from make_edit_goldens import at_latent_size, pixels
from make_encoder_goldens import random_clip
from make_flux_goldens import HERE
from make_picture_goldens import clip_tokenizer
from make_text_goldens import Clip, open_clip
from ve_sampling import SAMPLERS, SIGMAS, schedule, sigma_at, step_noise, timestep_of

VAE = vae.Sizes(latent=4, multipliers=(1, 1, 2, 2), blocks=1, quant=True)
V_MARK, V_SPREAD = "output_blocks.11.1.transformer_blocks.0.norm1.bias", 2.0  # by its spread SD 2's v-prediction is known
LENS, CONTRAST = "decoder.conv_out.weight", 32.0  # 8 bits of a 32nd of the range show what is wrong by a thousandth
BLANK = (0.8223, -0.6876, 0.6364, 0.1380)  # the masked latent of an inpainting model that has no picture


@dataclass
class Family:
    unet: str                  # in unet_models.json
    encoders: tuple            # parts whose hidden states are the context, side by side; the last one's pooled goes into the vector
    layer: int = -1
    norm: bool = True          # the final norm over the layer's states
    v_prediction: bool = False
    scale: float = 0.18215     # of latents
    aesthetic: bool = False


FAMILIES = {
    "sd1": Family("sd1", ("clip_l",)),
    "sd1_inpaint": Family("sd1_inpaint", ("clip_l",)),
    "sd2_v": Family("sd2", ("clip_h",), layer=-2, v_prediction=True),
    "sdxl": Family("sdxl", ("clip_l", "clip_g"), layer=-2, norm=False, scale=0.13025),
    "refiner": Family("refiner", ("clip_g",), layer=-2, norm=False, scale=0.13025, aesthetic=True),
}

WORDS = "a small red house beside the water, and trees under the mountains at night"
EDIT = {"init_image": "edit_init.png", "width": 96, "height": 64}
JOBS = {
    "sd1": [
        {"prompt": "a (red house:1.3) beside ((the lake)), (dark sky:0.6)", "negative": "bright (sun:1.2)", "seed": 7,
         "width": 96, "height": 96, "batch": 2, "sampler": {"steps": 5, "cfg": 7.0}},
        EDIT | {"prompt": "a boat on the lake", "negative": "snow", "seed": 8, "batch": 2,
                "sampler": {"steps": 4, "cfg": 5.0, "denoise": 0.5}},
        EDIT | {"prompt": "a white horse", "negative": "snow", "seed": 9, "mask": "edit_mask.png",
                "sampler": {"steps": 4, "cfg": 5.0, "denoise": 0.7}},
        {"prompt": "hills at night", "negative": "snow", "seed": 10, "width": 96, "height": 64, "conditions": [
            {"prompt": "a white horse", "mask": "edit_left.png", "strength": 0.8, "start": 0.0, "end": 0.6},
            {"prompt": "a yellow sun", "mask": "edit_right.png", "strength": 1.5, "start": 0.3, "end": 1.0}],
         "sampler": {"steps": 6, "cfg": 4.0}},
        {"prompt": "two (boats:1.2) on dark water", "negative": "snow", "seed": 11, "width": 96, "height": 96,
         "sampler": {"steps": 4, "cfg": 5.0, "clip_skip": 2}},
        {"prompt": "a moon over two hills", "negative": "", "seed": 4294967303, "width": 96, "height": 96, "batch": 2,
         "sampler": {"name": "euler_ancestral", "steps": 5, "cfg": 5.0, "step_noise": "philox"}},
    ],
    "sd1_inpaint": [
        EDIT | {"prompt": "a red house", "negative": "snow", "seed": 12, "mask": "edit_mask.png", "batch": 2,
                "sampler": {"steps": 4, "cfg": 4.0}},
        EDIT | {"prompt": "a red house", "negative": "snow", "seed": 13, "sampler": {"steps": 4, "cfg": 4.0, "denoise": 0.6}},
        {"prompt": "a red house", "negative": "snow", "seed": 14, "width": 96, "height": 96,
         "sampler": {"steps": 4, "cfg": 4.0}},
    ],
    "sd2_v": [
        {"prompt": "a (small boat:1.2) on dark water", "negative": "bright sun", "seed": 15, "width": 80, "height": 96,
         "sampler": {"name": "dpmpp_2m", "scheduler": "karras", "steps": 6, "cfg": 5.0}},
    ],
    "sdxl": [
        {"prompt": ", ".join([WORDS] * 6), "negative": "bright sun", "seed": 16, "width": 80, "height": 112,
         "sampler": {"name": "dpmpp_2m_sde", "scheduler": "karras", "steps": 6, "cfg": 5.0}},
        {"prompt": "snow BREAK (two boats:0.8)", "negative": "", "seed": 17, "width": 112, "height": 64, "batch": 2,
         "sampler": {"name": "euler_ancestral", "steps": 5, "cfg": 6.0}},
    ],
    "refiner": [
        {"prompt": "a blue moon over the mountains", "negative": "snow", "seed": 18, "width": 112, "height": 88,
         "sampler": {"steps": 5, "cfg": 5.0}},
    ],
}
SAMPLER = {"name": "euler", "scheduler": "normal", "denoise": 1.0, "clip_skip": 0, "step_noise": "cpu"}  # where an item is silent


# ---- Models ----

def drawn(shapes):
    return {name: torch.from_numpy(draw(name, shape)) for name, shape in shapes.items()}


def part_shapes(end):
    """{part: {name: shape}}"""
    shapes = lambda tensors: {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    return {"clip_l": {k: v for k, v in shapes(random_clip(end + 1, 128, 256, "quick_gelu", 0).state_dict()).items()
                       if k.startswith("text_model.") and not k.endswith("position_ids")},
            "open_clip": shapes(open_clip(random_clip(end + 1, 64, 128, "gelu", 0).state_dict())),
            "vae": shapes(vae.draw_vae(VAE, 0))}


def from_open_clip(tensors, layers=3):
    """transformers' names and shapes for OpenCLIP's tensors."""
    out = {"text_model.embeddings.token_embedding.weight": tensors["token_embedding.weight"],
           "text_model.embeddings.position_embedding.weight": tensors["positional_embedding"],
           "text_projection.weight": tensors["text_projection"].T}
    for kind in ("weight", "bias"):
        out[f"text_model.final_layer_norm.{kind}"] = tensors[f"ln_final.{kind}"]
        for i in range(layers):
            ours, theirs = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
            for a, b in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
                         ("attn.out_proj", "self_attn.out_proj")):
                out[f"{theirs}.{b}.{kind}"] = tensors[f"{ours}.{a}.{kind}"]
            for part, tensor in zip("qkv", tensors[f"{ours}.attn.in_proj_{kind}"].chunk(3)):
                out[f"{theirs}.self_attn.{part}_proj.{kind}"] = tensor
    return out


def load_clip(part, shapes, tokenizer):
    end = tokenizer.eos_token_id
    if part == "clip_l":
        model = random_clip(end + 1, 128, 256, "quick_gelu", 0)
        model.load_state_dict(drawn(shapes["clip_l"]) | {"text_projection.weight": torch.eye(128)})
        return Clip(model, tokenizer, end, {})
    model = random_clip(end + 1, 64, 128, "gelu", 0)
    model.load_state_dict(from_open_clip(drawn(shapes["open_clip"])))
    return Clip(model, tokenizer, 0, {})


def load_vae(shapes):
    tensors = drawn(shapes["vae"])
    tensors[LENS] *= CONTRAST
    return vae.model_of(tensors, VAE)


def load_unet(family):
    options = unets.MODELS[family.unet]
    model = unets.reference_model(**options)
    names = unets.rename(model.state_dict(), options)
    weights = {theirs: unets.weight(ours, shape) for ours, (theirs, shape) in names.items()}
    if family.v_prediction:
        weights[names[V_MARK][0]] *= V_SPREAD
    model.load_state_dict(weights)
    return model


# ---- Pictures ----

class Renderer:
    def __init__(self, folder, family, shapes, tokenizer):
        self.folder, self.family = folder, family
        self.clips = [load_clip(part, shapes, tokenizer) for part in family.encoders]
        self.unet = load_unet(family)
        self.autoencoder = load_vae(shapes)

    def tell(self, prompt, sampler, negative=False):
        """-> context [1, N, C], pooled [1, P] and whether it is a negative."""
        layer = -sampler["clip_skip"] or self.family.layer
        made = [clip.encode(prompt, layer, self.family.norm) for clip in self.clips]
        return torch.cat([hidden for hidden, _ in made], dim=2), made[-1][1], negative

    def extra(self, told, size):
        """What diffusers puts into the vector."""
        if "sizes" not in unets.MODELS[self.family.unet]:
            return None
        _, pooled, negative = told
        last = [2.5 if negative else 6.0] if self.family.aesthetic else [size[1], size[0]]
        return {"text_embeds": pooled, "time_ids": torch.tensor([[size[1], size[0], 0, 0, *last]], dtype=torch.float32)}

    def input_of(self, x, sigma):
        return x / (sigma**2 + 1).sqrt()

    def denoise_one(self, x, sigma, told, size, channels):
        model_input = self.input_of(x, sigma)
        if channels is not None:
            model_input = torch.cat([model_input, channels], dim=1)
        out = self.unet(model_input, timestep_of(sigma), told[0], added_cond_kwargs=self.extra(told, size)).sample
        if self.family.v_prediction:
            return x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1).sqrt()
        return x - out * sigma

    def positives(self, item, sampler, size):
        """-> (told, weight, highest sigma, lowest sigma) of each."""
        out = [(self.tell(item["prompt"], sampler), torch.ones(1, 1, 1, 1), math.inf, 0.0)]
        for c in item.get("conditions", []):
            mask = at_latent_size(pixels(f"{self.folder}/{c['mask']}"), size)
            out.append((self.tell(c["prompt"], sampler), mask * c["strength"], sigma_at(c["start"]), sigma_at(c["end"])))
        return out

    def encode(self, image):
        return self.autoencoder.encode(image * 2 - 1).latent_dist.mode() * self.family.scale

    def start(self, item, size):
        """-> the init image's latent (zeros where there is none), the mask at the latent's size or None, and the channels that an
        inpainting model takes beside the latent or None."""
        latent, mask = torch.zeros(1, 4, size[1] // 8, size[0] // 8), None
        channels = torch.cat([torch.ones_like(latent[:, :1]), torch.tensor(BLANK).reshape(1, 4, 1, 1).expand_as(latent)], dim=1)
        if "init_image" in item:
            image = pixels(f"{self.folder}/{item['init_image']}", size)
            latent = self.encode(image)
        if "mask" in item:
            cut = pixels(f"{self.folder}/{item['mask']}", size)[:, :1]
            mask = at_latent_size(cut, size)
            assert ((mask - 0.5).abs() > 1e-4).all(), "rounding the mask would depend on the last bit"
            channels = torch.cat([mask.round(), self.encode((image - 0.5) * (1 - cut.round()) + 0.5)], dim=1)
            if "channels" not in unets.MODELS[self.family.unet]:  # SetLatentNoiseMask scales the whole mask onto the latent
                mask = at_latent_size(pixels(f"{self.folder}/{item['mask']}"), size)
        return latent, mask, channels if "channels" in unets.MODELS[self.family.unet] else None

    def first(self, noise, sigma, latent):
        level = (1 + sigma**2).sqrt() if math.isclose(sigma, SIGMAS[-1], rel_tol=1e-5) else sigma
        return noise * level + latent

    def latents(self, item, sampler):
        size, cfg, seed = (item["width"], item["height"]), sampler["cfg"], item["seed"]
        steps, share = sampler["steps"], sampler["denoise"]
        positives, negative = self.positives(item, sampler, size), self.tell(item["negative"], sampler, True)
        latent, mask, channels = self.start(item, size)
        sigmas = schedule(sampler["scheduler"], steps if share == 1.0 else int(steps / share))[-(steps + 1):]
        noise = torch.randn(item.get("batch", 1), 4, size[1] // 8, size[0] // 8, generator=torch.Generator().manual_seed(seed))

        def each(x, sigma, told):
            return torch.cat([self.denoise_one(one, sigma, told, size, channels) for one in x.split(1)])

        def guided(x, sigma):
            total, weights = torch.zeros_like(x), torch.full_like(x, 1e-37)
            for told, weight, highest, lowest in positives:
                if lowest <= sigma <= highest:
                    total += each(x, sigma, told) * weight
                    weights += weight
            uncond = each(x, sigma, negative)
            return uncond + (total / weights - uncond) * cfg

        def kept(x, sigma):
            if mask is None:
                return guided(x, sigma)
            x = x * mask + (latent + sigma * noise) * (1 - mask)
            return guided(x, sigma) * mask + latent * (1 - mask)

        kind = "brownian" if sampler["name"].endswith("_sde") else sampler["step_noise"]
        x = self.first(noise, sigmas[0], latent)
        return SAMPLERS[sampler["name"]](kept, x, sigmas, step_noise(kind, seed, noise.shape, sigmas))

    def render(self, item):
        """-> its pictures [height, width, 3] in 8 bits."""
        for one in self.latents(item, SAMPLER | item["sampler"]).split(1):
            image = self.autoencoder.decode(one / self.family.scale, return_dict=False)[0]
            image = ((image + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0).numpy()
            yield (np.float32(255) * image).astype(np.uint8)


def flow(mapping):
    """A mapping in YAML's one-line form."""
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in mapping.items()) + "}"


def job_text(name):
    """The job as a user would write it."""
    lines = ["# Made by make_unet_picture_goldens.py.", f"checkpoint: {name}.safetensors", "tokenizers: {clip: picture_merges.txt}",
             "dtype: fp32", "gpu_ids: [cpu]", f"sampler: {{name: {SAMPLER['name']}, scheduler: {SAMPLER['scheduler']}}}", "images:"]
    for item in JOBS[name]:
        plain = [f"{key}: {json.dumps(value)}" for key, value in item.items() if key not in ("conditions", "sampler")]
        lines += [f"  - {plain[0]}", *(f"    {line}" for line in plain[1:])]
        lines += ["    conditions:"] if "conditions" in item else []
        lines += [f"      - {flow(condition)}" for condition in item.get("conditions", [])]
        lines += [f"    sampler: {flow(item['sampler'])}"]
    return "\n".join(lines + ["output:", "  directory: out", ""])


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"{HERE}/goldens")
    out_dir = parser.parse_args().out

    tokenizer = clip_tokenizer(out_dir)
    shapes = part_shapes(tokenizer.eos_token_id)
    lines = [json.dumps(name) + ": " + json.dumps(tensors, separators=(",", ":")) for name, tensors in shapes.items()]
    with open(f"{out_dir}/unet_picture_parts.json", "w", encoding="utf-8") as f:
        f.write("{" + ",\n".join(lines) + "}\n")
    for name, items in JOBS.items():
        with open(f"{out_dir}/unet_picture_{name}.yaml", "w", encoding="utf-8") as f:
            f.write(job_text(name))
        renderer, index = Renderer(out_dir, FAMILIES[name], shapes, tokenizer), 0
        for item in items:
            for picture in renderer.render(item):
                Image.fromarray(picture).save(f"{out_dir}/unet_picture_{name}-{index:04}-{item['seed']}.png")
                clipped = np.mean((picture == 0) | (picture == 255))
                print(f"{name} {index}: mean {picture.mean():.0f}, deviation {picture.std():.0f}, clipped {clipped:.1%}")
                index += 1


if __name__ == "__main__":
    main()
