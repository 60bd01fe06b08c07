#!/usr/bin/env python3
"""What the reference implementation (diffusers) computes for a Flux checkpoint on this GPU, in fp32 and in bf16.

usage: gpu_accuracy.py CHECKPOINT OUT.safetensors [--side 1024]

OUT holds the inputs of one forward and both velocities; tests/gpu/flux_test.cpp runs the same forward with our program and holds
our bf16 error against the reference's (at most 1.1 times). Needs diffusers 0.42.1.
"""
import argparse
import os
import sys

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
from make_flux_goldens import HEAD_DIM, Sizes, to_diffusers, velocity  # noqa: E402


def count(tensors, kind):
    return 1 + max(int(k.split(".")[1]) for k in tensors if k.startswith(kind))


@torch.no_grad()
def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint")
    arguments.add_argument("out")
    arguments.add_argument("--side", type=int, default=1024)
    args = arguments.parse_args()

    from diffusers import FluxTransformer2DModel

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    tensors = load_file(args.checkpoint, device="cuda")
    hidden, context = tensors["txt_in.weight"].shape
    sizes = Sizes(hidden=hidden, double=count(tensors, "double_blocks."), single=count(tensors, "single_blocks."),
                  guidance="guidance_in.in_layer.weight" in tensors)
    with torch.device("meta"):
        model = FluxTransformer2DModel(
            num_layers=sizes.double, num_single_layers=sizes.single, num_attention_heads=hidden // HEAD_DIM,
            attention_head_dim=HEAD_DIM, joint_attention_dim=context,
            pooled_projection_dim=tensors["vector_in.in_layer.weight"].shape[1], guidance_embeds=sizes.guidance)
    model.load_state_dict(to_diffusers(tensors, sizes), strict=True, assign=True)
    del tensors
    torch.cuda.empty_cache()
    model = model.eval().cuda()

    torch.manual_seed(1)
    side = args.side // 8
    x, text = torch.randn(1, 16, side, side), torch.randn(1, 512, context)
    pooled = torch.randn(1, model.config.pooled_projection_dim)
    # Times 1000 both are exact in bf16. diffusers rounds these products to bf16 (750 becomes 752), which moves its velocity by 60 %.
    sigma, guidance = 0.512, 4.096
    out = {"x": x, "context": text, "pooled": pooled, "sigma": torch.tensor([sigma]), "guidance": torch.tensor([guidance])}
    torch.set_default_device("cuda")
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):  # bf16 first: widening is exact, narrowing is not
        model = model.to(dtype)
        v = velocity(model, x.cuda().to(dtype), text.cuda().to(dtype), pooled.cuda().to(dtype), sigma,
                     guidance if sizes.guidance else None)
        out[f"velocity_{name}"] = v.float().cpu()
    error = (out["velocity_bf16"] - out["velocity_fp32"]).norm() / out["velocity_fp32"].norm()
    print(f"{args.checkpoint}: {args.side}x{args.side}, diffusers bf16 against fp32: relative L2 {error:.3e}", flush=True)
    save_file({k: v.contiguous() for k, v in out.items()}, args.out)


if __name__ == "__main__":
    main()
