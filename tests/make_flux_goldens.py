#!/usr/bin/env python3
"""Writes two small Flux transformers with the original (BFL) key names, and what diffusers computes with them in fp32.

usage: make_flux_goldens.py [--out DIR]        (environment: golden_requirements.txt)

flux_dev.safetensors      guidance, 2 heads, 1 double and 1 single block, bf16
flux_schnell.safetensors  no guidance, 1 head, 2 double and 2 single blocks, fp16
flux_cases.safetensors    fp32. For each case N: N.x [1, 16, h, w], N.context [1, tokens, 96], N.pooled [1, 128],
                          N.sigma [1], N.guidance [1] (dev only) and the expected N.velocity [1, 16, h, w]. For the
                          first case of each model also N.vec [1, hidden], N.double.I.{img,txt} and N.single.I (text
                          tokens first), each after its block.
"""
import argparse
import os
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD_DIM = 128
CONTEXT, POOLED = 96, 128


@dataclass
class Sizes:
    hidden: int
    double: int
    single: int
    guidance: bool
    mlp: int = 4


MODELS = {  # name: (sizes, stored type, seed of the weights)
    "flux_dev": (Sizes(hidden=256, double=1, single=1, guidance=True), torch.bfloat16, 11),
    "flux_schnell": (Sizes(hidden=128, double=2, single=2, guidance=False), torch.float16, 12),
}
CASES = [  # model, latent height and width, text tokens, sigma, guidance
    ("flux_dev", 16, 10, 7, 1.0, 3.5),
    ("flux_dev", 6, 20, 256, 0.7596, 3.5),
    ("flux_dev", 8, 8, 31, 0.05, 1.0),
    ("flux_schnell", 10, 16, 7, 1.0, None),
    ("flux_schnell", 12, 6, 256, 0.25, None),
]


class Draw:
    """Weights whose activations neither vanish nor explode; every bias and norm differs from its neutral value, so
    that a parameter left out or put in the wrong place shows."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors = {}

    def normal(self, name, shape, scale, shift=0.0):
        self.tensors[name] = torch.randn(shape, generator=self.generator) * scale + shift

    def linear(self, name, n_out, n_in, gain=1.0, bias=0.1):
        self.normal(f"{name}.weight", (n_out, n_in), gain / n_in**0.5)
        self.normal(f"{name}.bias", (n_out,), bias)


def draw_flux(s, seed):
    """A state dictionary under the original key names."""
    d, h = Draw(seed), s.hidden
    d.linear("img_in", h, 64)
    d.linear("txt_in", h, CONTEXT)
    embedders = [("time_in", 256), ("vector_in", POOLED)] + ([("guidance_in", 256)] if s.guidance else [])
    for name, n_in in embedders:
        d.linear(f"{name}.in_layer", h, n_in)
        d.linear(f"{name}.out_layer", h, h)
    for i in range(s.double):
        for stream in ("img", "txt"):
            p = f"double_blocks.{i}.{stream}"
            d.linear(f"{p}_mod.lin", 6 * h, h, gain=0.5, bias=0.3)
            d.linear(f"{p}_attn.qkv", 3 * h, h)
            d.normal(f"{p}_attn.norm.query_norm.scale", (HEAD_DIM,), 0.3, shift=1.0)
            d.normal(f"{p}_attn.norm.key_norm.scale", (HEAD_DIM,), 0.3, shift=1.0)
            d.linear(f"{p}_attn.proj", h, h)
            d.linear(f"{p}_mlp.0", s.mlp * h, h)
            d.linear(f"{p}_mlp.2", h, s.mlp * h)
    for i in range(s.single):
        p = f"single_blocks.{i}"
        d.linear(f"{p}.modulation.lin", 3 * h, h, gain=0.5, bias=0.3)
        d.linear(f"{p}.linear1", (3 + s.mlp) * h, h)
        d.normal(f"{p}.norm.query_norm.scale", (HEAD_DIM,), 0.3, shift=1.0)
        d.normal(f"{p}.norm.key_norm.scale", (HEAD_DIM,), 0.3, shift=1.0)
        d.linear(f"{p}.linear2", h, (1 + s.mlp) * h)
    d.linear("final_layer.adaLN_modulation.1", 2 * h, h, gain=0.5, bias=0.3)
    d.linear("final_layer.linear", 64, h, gain=0.8)
    return d.tensors


def to_diffusers(tensors, s):
    """The same weights under diffusers' names: q, k, v (and the single blocks' MLP) cut apart, the final layer's shift
    and scale exchanged."""
    out, h = {}, s.hidden

    def move(theirs, ours, change=lambda t: t):
        for kind in ("weight", "bias"):
            out[f"{theirs}.{kind}"] = change(tensors[f"{ours}.{kind}"])

    def cut(theirs, ours, sizes):
        for kind in ("weight", "bias"):
            for name, part in zip(theirs, tensors[f"{ours}.{kind}"].split(sizes)):
                out[f"{name}.{kind}"] = part.clone()

    move("x_embedder", "img_in")
    move("context_embedder", "txt_in")
    for theirs, ours in (("timestep", "time_in"), ("text", "vector_in"), ("guidance", "guidance_in")):
        if f"{ours}.in_layer.weight" in tensors:
            move(f"time_text_embed.{theirs}_embedder.linear_1", f"{ours}.in_layer")
            move(f"time_text_embed.{theirs}_embedder.linear_2", f"{ours}.out_layer")
    for i in range(s.double):
        p, q = f"transformer_blocks.{i}", f"double_blocks.{i}"
        for stream, norm, ff, qkv, proj, norms in (
            ("img", "norm1", "ff", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k")),
            ("txt", "norm1_context", "ff_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out",
             ("norm_added_q", "norm_added_k")),
        ):
            move(f"{p}.{norm}.linear", f"{q}.{stream}_mod.lin")
            cut([f"{p}.attn.{n}" for n in qkv], f"{q}.{stream}_attn.qkv", [h, h, h])
            move(f"{p}.attn.{proj}", f"{q}.{stream}_attn.proj")
            out[f"{p}.attn.{norms[0]}.weight"] = tensors[f"{q}.{stream}_attn.norm.query_norm.scale"]
            out[f"{p}.attn.{norms[1]}.weight"] = tensors[f"{q}.{stream}_attn.norm.key_norm.scale"]
            move(f"{p}.{ff}.net.0.proj", f"{q}.{stream}_mlp.0")
            move(f"{p}.{ff}.net.2", f"{q}.{stream}_mlp.2")
    for i in range(s.single):
        p, q = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
        move(f"{p}.norm.linear", f"{q}.modulation.lin")
        parts = [f"{p}.attn.to_q", f"{p}.attn.to_k", f"{p}.attn.to_v", f"{p}.proj_mlp"]
        cut(parts, f"{q}.linear1", [h, h, h, s.mlp * h])
        out[f"{p}.attn.norm_q.weight"] = tensors[f"{q}.norm.query_norm.scale"]
        out[f"{p}.attn.norm_k.weight"] = tensors[f"{q}.norm.key_norm.scale"]
        move(f"{p}.proj_out", f"{q}.linear2")
    move("norm_out.linear", "final_layer.adaLN_modulation.1", lambda t: torch.cat(t.chunk(2)[::-1]))
    move("proj_out", "final_layer.linear")
    return out


def reference_model(path, s):
    """diffusers' transformer with the weights as stored, widened to fp32."""
    from diffusers import FluxTransformer2DModel

    tensors = {k: v.float() for k, v in load_file(path).items()}
    model = FluxTransformer2DModel(
        num_layers=s.double, num_single_layers=s.single, num_attention_heads=s.hidden // HEAD_DIM,
        attention_head_dim=HEAD_DIM, joint_attention_dim=CONTEXT, pooled_projection_dim=POOLED,
        guidance_embeds=s.guidance)
    model.load_state_dict(to_diffusers(tensors, s), strict=True)
    return model.eval()


def velocity(model, x, context, pooled, sigma, guidance):
    """x [1, 16, h, w] -> velocity [1, 16, h, w]. Tokens are 2x2 patches in row order, channels first inside a patch."""
    b, c, h, w = x.shape
    tokens = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)
    rows, columns = torch.meshgrid(torch.arange(h // 2), torch.arange(w // 2), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()
    out = model(
        hidden_states=tokens, encoder_hidden_states=context, pooled_projections=pooled,
        timestep=torch.tensor([sigma], dtype=torch.float32), img_ids=ids, txt_ids=torch.zeros(context.shape[1], 3),
        guidance=torch.tensor([guidance], dtype=torch.float32) if guidance is not None else None, return_dict=False)[0]
    return out.reshape(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def record_blocks(model, case, out):
    """Hooks that put each block's result into `out` under the case's name; returns their handles."""
    handles = [model.time_text_embed.register_forward_hook(
        lambda m, args, result: out.__setitem__(f"{case}.vec", result.clone()))]
    for i, block in enumerate(model.transformer_blocks):
        def double(m, args, result, i=i):
            out[f"{case}.double.{i}.txt"], out[f"{case}.double.{i}.img"] = (t.clone() for t in result)
        handles.append(block.register_forward_hook(double))
    for i, block in enumerate(model.single_transformer_blocks):
        def single(m, args, result, i=i):
            out[f"{case}.single.{i}"] = torch.cat(result, dim=1)
        handles.append(block.register_forward_hook(single))
    return handles


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"{HERE}/goldens")
    out_dir = parser.parse_args().out
    os.makedirs(out_dir, exist_ok=True)

    for name, (sizes, dtype, seed) in MODELS.items():
        tensors = {k: v.to(dtype).contiguous() for k, v in draw_flux(sizes, seed).items()}
        save_file(tensors, f"{out_dir}/{name}.safetensors")

    cases, generator, recorded = {}, torch.Generator().manual_seed(13), set()
    for index, (name, h, w, tokens, sigma, guidance) in enumerate(CASES):
        model = reference_model(f"{out_dir}/{name}.safetensors", MODELS[name][0])
        case = f"{name}.{index}"
        x = torch.randn(1, 16, h, w, generator=generator)
        context = torch.randn(1, tokens, CONTEXT, generator=generator)
        pooled = torch.randn(1, POOLED, generator=generator)
        handles = record_blocks(model, case, cases) if name not in recorded else []
        recorded.add(name)
        result = velocity(model, x, context, pooled, sigma, guidance)
        for handle in handles:
            handle.remove()
        cases |= {f"{case}.x": x, f"{case}.context": context, f"{case}.pooled": pooled,
                  f"{case}.sigma": torch.tensor([sigma]), f"{case}.velocity": result}
        if guidance is not None:
            cases[f"{case}.guidance"] = torch.tensor([guidance])
        print(f"{case}: velocity {result.std():.3f} +- against input {x.std():.3f}")
    save_file({k: v.contiguous() for k, v in cases.items()}, f"{out_dir}/flux_cases.safetensors")


if __name__ == "__main__":
    main()
