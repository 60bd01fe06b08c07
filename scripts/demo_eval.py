#!/usr/bin/env python3
"""Export the demo checkpoint, sample held-out prompts from the exported files, and check the pictures.

    scripts/demo_eval.py presets/demo            # held-out prompts again, from the files there
    scripts/demo_eval.py --truth                 # the checker on the held-out scenes' own drawings
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
from pathlib import Path

import cv2
import numpy as np
import torch

import demo_data
import demo_files
from demo_check import check
from demo_codec import Codec
from demo_model import CLIP, CODEC, FLUX, T5, ClipText, Flux, T5Encoder, pack, position_ids, rope, unpack
from demo_paint import draw
from demo_scenes import sample_scene
from demo_text import T5_LENGTH

Models = tuple[Codec, Flux, ClipText, T5Encoder]


def export(folder: Path, codec: Codec, flux: Flux, clip: ClipText, t5: T5Encoder) -> None:
    """Write the four files: transformer and T5 in scaled fp8, CLIP and the autoencoder in bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in (("flux_demo", flux), ("t5xxl", t5)):
        demo_files.save(folder / f"{name}.safetensors", demo_files.scaled_fp8(model.state_dict(), demo_files.linear_names(model)))
    for name, model in (("clip_l", clip), ("ae", codec)):
        demo_files.save(folder / f"{name}.safetensors", {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})


def read(folder: Path, tokenizers: demo_data.Tokenizers, device: torch.device) -> Models:
    """The four models in fp32 from the exported files."""
    models = (Codec(**CODEC), Flux(**FLUX), ClipText(tokenizers.clip.vocabulary, **CLIP), T5Encoder(tokenizers.t5.rows, **T5))
    for model, name in zip(models, ("ae", "flux_demo", "clip_l", "t5xxl")):
        model.load_state_dict(demo_files.widened(demo_files.load(folder / f"{name}.safetensors")))
    return tuple(m.to(device).eval() for m in models)  # type: ignore[return-value]


def simple_sigmas(steps: int) -> list[float]:
    """ComfyUI's `simple` schedule over a flow model's 1000 times."""
    return [(1000 - int(i * 1000 / steps)) / 1000 for i in range(steps)] + [0.0]


@torch.no_grad()
def sample(models: Models, tokenizers: demo_data.Tokenizers, prompts: list[str], seeds: list[int], steps: int, guidance: float,
           device: torch.device) -> np.ndarray:
    """Euler from the seeds' CPU noise, guided away from the empty prompt: (B, 512, 512, 3) uint8."""
    codec, flux, clip, t5 = models
    told = prompts if guidance == 1.0 else [*prompts, *[""] * len(prompts)]
    text = t5(torch.from_numpy(np.stack([tokenizers.t5.encode(p) for p in told])).long().to(device))
    pooled = clip(torch.from_numpy(np.stack([tokenizers.clip.encode(p) for p in told])).long().to(device))
    noise = torch.cat([torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(s)) for s in seeds])
    x, pe = pack(noise.to(device)), rope(position_ids(32, 32, T5_LENGTH)).to(device)
    sigmas = simple_sigmas(steps)
    for now, then in zip(sigmas, sigmas[1:]):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            both = x.repeat(len(told) // len(prompts), 1, 1)
            parts = flux(both, text, pooled, torch.full((len(both),), now, device=device), pe).float().split(len(x))
        velocity = parts[0] if len(parts) == 1 else torch.lerp(parts[1], parts[0], guidance)
        x = x + (then - now) * velocity
    pictures = torch.cat([codec.picture(z) for z in unpack(x, 64, 64).split(10)])
    return (((pictures + 1) / 2).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def prompts_of(first: int, count: int, tokenizers: demo_data.Tokenizers) -> list[dict]:
    """Prompts with their named attributes; the scene's number is the seed of its noise too."""
    found = []
    for seed in range(first, first + count):
        text, named = demo_data.words_of(seed, 0, tokenizers.clip, keep=0.95)
        found.append({"prompt": text, "seed": seed, "named": [list(p) for p in named]})
    return found


def score(pictures: np.ndarray, prompts: list[dict]) -> tuple[dict[str, list[int]], list[float]]:
    """Per attribute [right, asked], and each picture's share of right answers."""
    table: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    shares = []
    with concurrent.futures.ThreadPoolExecutor() as pool:  # OpenCV and NumPy work outside the interpreter's lock
        answered = list(pool.map(lambda pair: check(pair[0], [tuple(p) for p in pair[1]["named"]]), zip(pictures, prompts)))
    for prompt, answers in zip(prompts, answered):
        shares.append(sum(answers) / len(answers))
        for (key, _), right in zip(prompt["named"], answers):
            table[key][0] += int(right)
            table[key][1] += 1
    return dict(table), shares


def rate(table: dict[str, list[int]]) -> float:
    return sum(r for r, _ in table.values()) / sum(n for _, n in table.values())


def sheet(path: Path, pictures: np.ndarray, columns: int = 6, size: int = 256) -> None:
    small = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in pictures]
    small += [np.full_like(small[0], 255)] * (-len(small) % columns)
    rows = [np.concatenate(small[i : i + columns], axis=1) for i in range(0, len(small), columns)]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def batches(models: Models, tokenizers: demo_data.Tokenizers, prompts: list[dict], steps: int, guidance: float,
            device: torch.device) -> np.ndarray:
    parts = [prompts[i : i + 50] for i in range(0, len(prompts), 50)]
    return np.concatenate([sample(models, tokenizers, [p["prompt"] for p in part], [p["seed"] for p in part], steps, guidance, device)
                           for part in parts])


def evaluate(folder: Path, tokenizers: demo_data.Tokenizers, count: int, steps: int, device: torch.device,
             guidances: tuple[float, ...] = (1.0, 2.0, 3.0, 4.5)) -> dict:
    """Choose the guidance on validation prompts, then measure it on the held-out ones."""
    models = read(folder, tokenizers, device)
    trial = prompts_of(demo_data.VALIDATION_SEED, max(2, count // 3), tokenizers) if len(guidances) > 1 else []
    found = {g: rate(score(batches(models, tokenizers, trial, steps, g, device), trial)[0]) if trial else 1.0 for g in guidances}
    guidance = max(found, key=lambda g: found[g])
    prompts = prompts_of(demo_data.HELDOUT_SEED, count, tokenizers)
    (folder / "prompts_heldout.json").write_text(json.dumps(prompts, separators=(",", ":")).replace('{"prompt"', '\n{"prompt"'))
    pictures = batches(models, tokenizers, prompts, steps, guidance, device)
    table, shares = score(pictures, prompts)
    sheet(folder / "sheet.png", pictures[:36])
    worst = np.argsort(shares)[:18]
    sheet(folder / "worst.png", pictures[worst])
    result = {"rate": rate(table), "steps": steps, "guidance": guidance, "validation": {str(k): v for k, v in found.items()},
              "attributes": {k: {"right": r, "asked": n, "share": round(r / n, 4)} for k, (r, n) in sorted(table.items())},
              "worst": [prompts[i]["prompt"] for i in worst]}
    print(f"held-out: {result['rate']:.4f} of {sum(n for _, n in table.values())} attributes, "
          f"guidance {guidance} of {found}; " + ", ".join(f"{k} {v['share']:.3f}" for k, v in result["attributes"].items()), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent.parent / "presets" / "demo")
    parser.add_argument("--truth", action="store_true", help="check the scenes' own drawings instead of rendering")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--result", type=Path, default=Path("result.json"), help="where the figures go")
    a = parser.parse_args()
    tokenizers = demo_data.Tokenizers.load(a.folder)
    if a.truth:
        prompts = prompts_of(demo_data.HELDOUT_SEED, a.count, tokenizers)
        table, _ = score(np.stack([draw(sample_scene(p["seed"])) for p in prompts]), prompts)
        print(f"drawings: {rate(table):.4f} of {sum(n for _, n in table.values())} attributes")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    a.result.write_text(json.dumps(evaluate(a.folder, tokenizers, a.count, a.steps, device), indent=1))


if __name__ == "__main__":
    main()
