#!/usr/bin/env python3
"""Renders whole jobs with reference code: tokenizers and encoders of transformers, transformer and autoencoder of
diffusers, noise, sigmas, Euler steps and 8 bits as ComfyUI has them, all in fp32 on the CPU.

usage: make_picture_goldens.py [--out DIR]    (environment: golden_requirements.txt; after make_flux_goldens.py and
                                               make_vae_goldens.py)

picture_clip_l.safetensors, picture_t5xxl.safetensors    small text encoders under the original names, fp16 and bf16
picture_merges.txt, picture_spiece.model                 their tokenizers' data, learnt from made-up captions
picture_{dev,schnell}.yaml                               the jobs; they take flux_dev, flux_schnell and vae_flux as well
picture_{dev,schnell}-INDEX-SEED.png                     the pictures, under the names that the jobs give them
picture_cases.safetensors                                what lies between, to tell where a wrong picture went wrong
    For each picture N (e.g. dev.0): N.sigmas [steps + 1], N.noise and N.latent (the sampler's result) [1, 16, h, w],
    and for P positive and, where cfg is not 1, negative: N.P.clip_ids [77], N.P.t5_ids [256], N.P.pooled [1, 128],
    N.P.context [1, 256, 96]
"""
import argparse
import io
import json
import math
import os
import tempfile
from collections import Counter

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import make_flux_goldens as flux
import make_vae_goldens as vae
from make_flux_goldens import CONTEXT, HERE, POOLED, Draw

CLIP_TOKENS, T5_TOKENS = 77, 256
CLIP_LAYERS, CLIP_HEADS = 2, 2
T5_LAYERS, T5_HEADS, T5_HEAD_DIM, T5_FF, T5_VOCABULARY = 2, 2, 64, 192, 256

JOBS = {
    "picture_dev": {
        "checkpoint": "flux_dev.safetensors", "shift": 1.15, "levels": 10000, "guidance": 3.5,
        "images": [
            {"prompt": "a red house beside a lake, two trees", "negative": "", "width": 96, "height": 64, "seed": 7,
             "steps": 6, "cfg": 1.0},
            {"prompt": "Night over the mountains; a small boat on dark water", "negative": "bright sun, blue sky",
             "width": 48, "height": 80, "seed": 18446744073709551615, "steps": 5, "cfg": 2.0},
        ]},
    "picture_schnell": {
        "checkpoint": "flux_schnell.safetensors", "shift": 0.0, "levels": 1000, "guidance": None,
        "images": [
            {"prompt": "a yellow sun behind green hills and a white horse", "negative": "", "width": 64, "height": 64,
             "seed": 1234567, "steps": 4, "cfg": 1.0},
        ]},
}


def captions():
    """What the tokenizers learn from."""
    for colour in "red green blue yellow white black dark bright".split():
        for thing in "house tree boat horse hill mountain lake sun moon sky cloud".split():
            for place in ("beside the water", "behind two hills", "on the lake", "over the mountains", "at night",
                          "in the snow"):
                yield f"A small {colour} {thing} {place}, and trees"


def learn_merges(count):
    """Byte-pair merges, the most frequent pair first, over lower-case words that end in </w> (Sennrich et al. 2016)."""
    words = Counter(word for line in captions() for word in line.lower().replace(",", "").split())
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, parts in pieces.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, parts in pieces.items():
            joined = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            pieces[word] = joined
    return merges


def make_tokenizers(out_dir):
    import sentencepiece

    with open(f"{out_dir}/picture_merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in learn_merges(150)))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=captions(), model_writer=model, model_type="unigram", vocab_size=150, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>", num_threads=1,
        minloglevel=2)
    with open(f"{out_dir}/picture_spiece.model", "wb") as f:
        f.write(model.getvalue())


def clip_tokenizer(out_dir):
    """transformers' CLIP tokenizer. The vocabulary follows from the merges: bytes, bytes that end a word, merges,
    start, end."""
    from transformers import CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    with open(f"{out_dir}/picture_merges.txt", encoding="utf-8") as f:
        merges = ["".join(line.split()) for line in f.read().strip().split("\n")[1:]]
    letters = list(bytes_to_unicode().values())
    tokens = letters + [c + "</w>" for c in letters] + merges + ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/vocab.json", "w", encoding="utf-8") as f:
            json.dump({token: index for index, token in enumerate(tokens)}, f)
        return CLIPTokenizer(f"{folder}/vocab.json", f"{out_dir}/picture_merges.txt")


def draw_clip(vocabulary):
    d, h = Draw(31), POOLED
    d.normal("text_model.embeddings.token_embedding.weight", (vocabulary, h), 0.7)
    d.normal("text_model.embeddings.position_embedding.weight", (CLIP_TOKENS, h), 0.3)

    def norm(name):
        d.normal(f"{name}.weight", (h,), 0.3, shift=1.0)
        d.normal(f"{name}.bias", (h,), 0.2)

    for i in range(CLIP_LAYERS):
        p = f"text_model.encoder.layers.{i}"
        norm(f"{p}.layer_norm1")
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            d.linear(f"{p}.self_attn.{part}", h, h)
        norm(f"{p}.layer_norm2")
        d.linear(f"{p}.mlp.fc1", 4 * h, h)
        d.linear(f"{p}.mlp.fc2", h, 4 * h)
    norm("text_model.final_layer_norm")
    return d.tensors


def draw_t5():
    d, h, inner = Draw(32), CONTEXT, T5_HEADS * T5_HEAD_DIM
    d.normal("shared.weight", (T5_VOCABULARY, h), 1.0)
    d.normal("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, T5_HEADS), 0.5)
    for i in range(T5_LAYERS):
        p = f"encoder.block.{i}.layer"
        d.normal(f"{p}.0.layer_norm.weight", (h,), 0.3, shift=1.0)
        d.normal(f"{p}.0.SelfAttention.q.weight", (inner, h), (h * T5_HEAD_DIM) ** -0.5)  # T5 does not scale its logits
        for part in "kv":
            d.normal(f"{p}.0.SelfAttention.{part}.weight", (inner, h), h**-0.5)
        d.normal(f"{p}.0.SelfAttention.o.weight", (h, inner), inner**-0.5)
        d.normal(f"{p}.1.layer_norm.weight", (h,), 0.3, shift=1.0)
        for part in ("wi_0", "wi_1"):
            d.normal(f"{p}.1.DenseReluDense.{part}.weight", (T5_FF, h), h**-0.5)
        d.normal(f"{p}.1.DenseReluDense.wo.weight", (h, T5_FF), T5_FF**-0.5)
    d.normal("encoder.final_layer_norm.weight", (h,), 0.3, shift=1.0)
    return d.tensors


def save(tensors, dtype, path):
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, path)


class Encoders:
    """A prompt's two conditionings, as ComfyUI makes them for Flux."""

    def __init__(self, out_dir):
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

        self.clip_tokens = clip_tokenizer(out_dir)
        self.end = self.clip_tokens.eos_token_id
        self.clip = CLIPTextModel(CLIPTextConfig(
            vocab_size=self.end + 1, hidden_size=POOLED, intermediate_size=4 * POOLED, num_hidden_layers=CLIP_LAYERS,
            num_attention_heads=CLIP_HEADS, hidden_act="quick_gelu", bos_token_id=self.end - 1,
            eos_token_id=self.end)).eval()
        self.clip.load_state_dict({k: v.float() for k, v in load_file(f"{out_dir}/picture_clip_l.safetensors").items()})

        self.t5_tokens = T5Tokenizer(f"{out_dir}/picture_spiece.model", extra_ids=0, legacy=True)
        self.t5 = T5EncoderModel(T5Config(
            vocab_size=T5_VOCABULARY, d_model=CONTEXT, d_kv=T5_HEAD_DIM, d_ff=T5_FF, num_layers=T5_LAYERS,
            num_heads=T5_HEADS, feed_forward_proj="gated-gelu", is_encoder_decoder=False)).eval()
        tensors = {k: v.float() for k, v in load_file(f"{out_dir}/picture_t5xxl.safetensors").items()}
        missing, unexpected = self.t5.load_state_dict(tensors, strict=False)
        assert missing in ([], ["encoder.embed_tokens.weight"]) and not unexpected, (missing, unexpected)

    def encode(self, prompt):
        """-> {clip_ids, t5_ids, context, pooled}. Padding is attended: no masks. Pooled stands at the first end."""
        clip_ids = self.clip_tokens(prompt)["input_ids"]
        clip_ids = torch.tensor(clip_ids + [self.end] * (CLIP_TOKENS - len(clip_ids)))
        t5_ids = self.t5_tokens(prompt)["input_ids"]
        t5_ids = torch.tensor(t5_ids + [0] * (T5_TOKENS - len(t5_ids)))
        return {"clip_ids": clip_ids, "t5_ids": t5_ids, "context": self.t5(t5_ids[None]).last_hidden_state,
                "pooled": self.clip(clip_ids[None]).pooler_output}


def simple_sigmas(shift, levels, steps):
    """ComfyUI's `simple` over Flux's table of levels; in fp32."""
    t = torch.arange(1, levels + 1, dtype=torch.float32) / levels
    table = math.exp(shift) / (math.exp(shift) + (1 / t - 1)) if shift else t
    return [float(table[-(1 + int(step * levels / steps))]) for step in range(steps)] + [0.0]


def render(job, item, encoders, transformer, autoencoder):
    """-> [height, width, 3] in 8 bits, and what lies between."""
    positive, negative = encoders.encode(item["prompt"]), encoders.encode(item["negative"])
    generator = torch.Generator().manual_seed(item["seed"])
    x = torch.randn(1, 16, item["height"] // 8, item["width"] // 8, generator=generator)
    sigmas = simple_sigmas(job["shift"], job["levels"], item["steps"])
    between = {"sigmas": torch.tensor(sigmas), "noise": x} | {f"positive.{k}": v for k, v in positive.items()}
    if item["cfg"] != 1.0:
        between |= {f"negative.{k}": v for k, v in negative.items()}

    def denoise(conditioning, sigma):
        context, pooled = conditioning["context"], conditioning["pooled"]
        return x - sigma * flux.velocity(transformer, x, context, pooled, sigma, job["guidance"])

    for sigma, following in zip(sigmas, sigmas[1:]):
        denoised = denoise(positive, sigma)
        if item["cfg"] != 1.0:
            uncond = denoise(negative, sigma)
            denoised = uncond + (denoised - uncond) * item["cfg"]
        x = x + (x - denoised) / sigma * (following - sigma)
    image = autoencoder.decode(x / 0.3611 + 0.1159, return_dict=False)[0]
    image = ((image + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    return (np.float32(255) * image).astype(np.uint8), between | {"latent": x}


def job_text(name):
    """The job as a user would write it."""
    job = JOBS[name]
    guidance = f", guidance: {job['guidance']}" if job["guidance"] is not None else ""
    lines = [
        "# Made by make_picture_goldens.py.",
        f"checkpoint: {job['checkpoint']}",
        "encoders: {clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}",
        "vae: vae_flux.safetensors",
        "tokenizers: {clip: picture_merges.txt, t5xxl: picture_spiece.model}",
        "dtype: fp32",
        "gpu_ids: [cpu]",
        f"sampler: {{name: euler, scheduler: simple{guidance}}}",
        "images:",
    ]
    for item in job["images"]:
        lines += [
            f"  - prompt: \"{item['prompt']}\"",
            f"    negative: \"{item['negative']}\"",
            f"    width: {item['width']}",
            f"    height: {item['height']}",
            f"    seed: {item['seed']}",
            f"    sampler: {{steps: {item['steps']}, cfg: {item['cfg']}}}",
        ]
    return "\n".join(lines + ["output:", "  directory: out", ""])


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"{HERE}/goldens")
    out_dir = parser.parse_args().out

    make_tokenizers(out_dir)
    save(draw_clip(clip_tokenizer(out_dir).eos_token_id + 1), torch.float16, f"{out_dir}/picture_clip_l.safetensors")
    save(draw_t5(), torch.bfloat16, f"{out_dir}/picture_t5xxl.safetensors")
    encoders = Encoders(out_dir)
    autoencoder = vae.reference_model(f"{out_dir}/vae_flux.safetensors", vae.MODELS["vae_flux"][0])
    cases = {}
    for name, job in JOBS.items():
        with open(f"{out_dir}/{name}.yaml", "w", encoding="utf-8") as f:
            f.write(job_text(name))
        stem = job["checkpoint"].removesuffix(".safetensors")
        transformer = flux.reference_model(f"{out_dir}/{job['checkpoint']}", flux.MODELS[stem][0])
        for index, item in enumerate(job["images"]):
            pixels, between = render(job, item, encoders, transformer, autoencoder)
            cases |= {f"{name.removeprefix('picture_')}.{index}.{k}": v.contiguous() for k, v in between.items()}
            Image.fromarray(pixels).save(f"{out_dir}/{name}-{index:04}-{item['seed']}.png")
            clipped = np.mean((pixels == 0) | (pixels == 255))
            print(f"{name} {index}: mean {pixels.mean():.0f}, deviation {pixels.std():.0f}, clipped {clipped:.1%}")
    save_file(cases, f"{out_dir}/picture_cases.safetensors")


if __name__ == "__main__":
    main()
