#!/usr/bin/env python3
"""The table of decodes: sizes x ways x GPUs, time, memory and error, beside diffusers' in the same run.

    scripts/vae_bench.py BUILD_DIR [--gpus 1,2,4] [--sides 1024,2048,4096] [--no-peer]

BUILD_DIR holds mgpu-vae-bench. The autoencoder is Flux's in size, 16 channels, with random weights: bf16 errors are
larger than a trained one's, the reference's as ours. The peer needs torch and diffusers. Times are medians; memory is
what the tensors of the fullest GPU took, without CUDA's context; errors are relative L2 against the same decode in fp32.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file

CHANNELS = (128, 256, 512, 512)
LATENT = 16
NAMES = {"whole": "whole", "slabs": "slabs", "thin": "slabs, two levels at once", "tiled": "tiled"}


def autoencoder():
    """A decoder's tensors under their names in the original layout, fp32."""
    generator = torch.Generator().manual_seed(3)
    out = {}

    def conv(name, to, of, side=3):
        out[name + ".weight"] = torch.randn(to, of, side, side, generator=generator) / math.sqrt(of * side * side)
        out[name + ".bias"] = torch.zeros(to)

    def norm(name, channels):
        out[name + ".weight"], out[name + ".bias"] = torch.ones(channels), torch.zeros(channels)

    def residual(name, of, to):
        norm(name + ".norm1", of), conv(name + ".conv1", to, of), norm(name + ".norm2", to), conv(name + ".conv2", to, to)
        if of != to:
            conv(name + ".nin_shortcut", to, of, 1)

    channels = CHANNELS[-1]
    conv("decoder.conv_in", channels, LATENT)
    residual("decoder.mid.block_1", channels, channels), residual("decoder.mid.block_2", channels, channels)
    norm("decoder.mid.attn_1.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        conv("decoder.mid.attn_1." + part, channels, channels, 1)
    for level in reversed(range(len(CHANNELS))):
        for block in range(3):
            residual(f"decoder.up.{level}.block.{block}", channels, CHANNELS[level])
            channels = CHANNELS[level]
        if level:
            conv(f"decoder.up.{level}.upsample.conv", channels, channels)
    norm("decoder.norm_out", channels), conv("decoder.conv_out", 3, channels)
    return out


def ours(build, path, cases):
    """What each case of (side, way, GPUs) came to; a case that failed ended the run."""
    names = [f"{side}x{way}x{gpus}" for side, way, gpus in cases]
    done = subprocess.run([os.path.join(build, "mgpu-vae-bench"), path, *names], capture_output=True, text=True)
    results = [json.loads(text) for text in done.stdout.splitlines()]
    why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[0]
    return results + [{"failed": why}] * (len(cases) - len(results))


def peer(path, side, tiled):
    """diffusers' AutoencoderKL in bf16, eager."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from safetensors.torch import load_file

    config = {"in_channels": 3, "out_channels": 3,
              "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
              "block_out_channels": list(CHANNELS), "layers_per_block": 2, "latent_channels": LATENT, "sample_size": 1024,
              "use_quant_conv": False, "use_post_quant_conv": False}
    model = AutoencoderKL(**config)
    model.load_state_dict(convert_ldm_vae_checkpoint(load_file(path), config), strict=False)
    model = model.cuda().eval()
    z = torch.randn(1, LATENT, side // 8, side // 8, generator=torch.Generator().manual_seed(7)).cuda()
    with torch.no_grad():
        exact = model.decode(z).sample if side < 4096 else None  # there it takes more than the GPU has
        model.to(torch.bfloat16)
        model.use_tiling = tiled
        times = []
        for _ in range(4):
            torch.cuda.reset_peak_memory_stats()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            image = model.decode(z.bfloat16()).sample
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
    error = None if exact is None else float((image.float() - exact).norm() / exact.norm())
    held = 0 if exact is None else exact.nbytes
    return {"ms": sorted(times[1:])[1], "gib": (torch.cuda.max_memory_allocated() - held) / 2**30, "error": error}


def line(side, way, gpus, result):
    if "failed" in result:
        return f"| {side}² | {way} | {gpus} | {result['failed']} | | |"
    error = "" if result["error"] is None else f"{result['error']:.4f}"
    return f"| {side}² | {way} | {gpus} | {result['ms']:.1f} | {result['gib']:.2f} | {error} |"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("build")
    arguments.add_argument("--gpus", default=",".join(str(n) for n in (1, 2, 4, 8) if n <= torch.cuda.device_count()))
    arguments.add_argument("--sides", default="1024,2048,4096")
    arguments.add_argument("--no-peer", action="store_true")
    given = arguments.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| size | way | GPUs | ms | GiB a GPU | error |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ae.safetensors")
        save_file(autoencoder(), path)
        for side in (int(text) for text in given.sides.split(",")):
            # A picture of 1024² is hardly more than a slab, and no more than a tile.
            ways = ("whole",) if side <= 1024 else ("whole", "slabs", "thin", "tiled")
            cases = [(side, way, int(gpus)) for way in ways for gpus in given.gpus.split(",")]
            results = ours(given.build, path, cases)
            for (_, way, gpus), result in zip(cases, results):
                print(line(side, "parallel" if way == "whole" and gpus > 1 else NAMES[way], gpus, result), flush=True)
            for alike in (("whole", "slabs", "thin"), ("tiled",)):
                if len({r.get("sum") for (_, way, _), r in zip(cases, results) if way in alike}) > 1:
                    sys.exit(f"{' and '.join(alike)} {side}²: the way or the number of GPUs changed the bits")
            for tiled in () if given.no_peer else (False,) if side <= 1024 else (False, True):
                print(line(side, "diffusers" + (", tiled" if tiled else ""), 1, peer(path, side, tiled)), flush=True)
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
