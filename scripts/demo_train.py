"""The first training stage of the demo checkpoint, `train_codec`, and what both stages share."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import demo_files
from demo_codec import Codec
from demo_data import Pool, to_float
from demo_model import CODEC


@dataclass
class Settings:
    pool: int = 48_000  # pictures held on the device while the autoencoder trains
    store: int = 48_000  # latents that the flow trains on
    codec_batch: int = 32  # 256 x 256 crops; a quarter of it for whole pictures
    flow_batch: tuple[int, int] = (128, 64)  # at 256 x 256, at 512 x 512
    codec_rate: float = 1.2e-3
    text_batch: int = 256
    text_rate: float = 2e-3
    text_steps: int = 3000
    flow_rate: float = 1e-3
    muon_rate: float = 8e-3
    dropout: float = 0.1  # share of captions replaced by the empty one, for guidance
    kl: float = 2e-4
    compiled: bool = True
    workers: int = 11
    slots: int = 96
    text_log: int = 250
    heldout: int = 200
    steps: int = 16
    codec_log: int = 200
    flow_log: int = 250
    save_seconds: float = 45.0


class Average:
    """Exponential moving average of a model's parameters, short at first."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.live = [p for p in model.parameters()]
        self.mean = [p.detach().clone() for p in self.live]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.mean, self.live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live and the averaged parameters."""
        for p, m in zip(self.live, self.mean):
            keep = p.detach().clone()
            p.copy_(m)
            m.copy_(keep)


def learning_rate(peak: float, step: int, progress: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine over the stage's time down to 2 %."""
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def compile_blocks(model: nn.Module, kinds: tuple[str, ...]) -> None:
    """Compile block by block: blocks of one kind share their kernels, so it takes seconds."""
    torch._dynamo.config.recompile_limit = 64
    for module in model.modules():
        if type(module).__name__ in kinds:
            module.forward = torch.compile(module.forward, dynamic=False)


def codec_loss(out: Tensor, wanted: Tensor) -> Tensor:
    """L1 on the picture, on its differences between neighbours (crisp edges) and on two smaller copies."""
    out = out.float()
    loss = (out - wanted).abs().mean()
    for axis in (2, 3):
        loss = loss + 0.5 * (out.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean()
    for size in (2, 4):
        loss = loss + 0.5 * (F.avg_pool2d(out, size) - F.avg_pool2d(wanted, size)).abs().mean()
    return loss + (out - wanted).square().mean()


def crops(images: Tensor, count: int, size: int) -> Tensor:
    """`count` random crops (count, 3, size, size) of random pictures, in -1..1."""
    n, full = len(images), images.shape[1]
    picked = torch.randint(n, (count,)).tolist()
    at = torch.randint(full - size + 1, (count, 2)).tolist()
    return to_float(torch.stack([images[i, y : y + size, x : x + size] for i, (y, x) in zip(picked, at)]))


def start_codec(init: Path | None, device: torch.device) -> Codec:
    codec = Codec(**CODEC)
    if init:
        codec.load_state_dict(demo_files.widened(demo_files.load(init / "ae.safetensors")))
        codec.encoder.requires_grad_(False)
    return codec.to(device, memory_format=torch.channels_last)


def codec_step(codec: Codec, s: Settings, device: torch.device) -> Callable[[Tensor, bool], tuple[Tensor, Tensor]]:
    """(pictures, half) -> loss, [error, kl]."""

    def step_loss(x: Tensor, half: bool) -> tuple[Tensor, Tensor]:
        with autocast(device):
            mean, logvar = codec.moments(x)
            z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
            kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
            # Shrunken latents must decode to the shrunken picture: smooth latents are easier to generate.
            out = codec.decoder(F.avg_pool2d(z, 2) if half else z)
        error = codec_loss(out, F.avg_pool2d(x, 2) if half else x)
        return error + s.kl * kl, torch.stack([error.detach(), kl.detach()])

    return step_loss


def train_codec(work: Path, pool: Pool, s: Settings, minutes: float, init: Path | None, device: torch.device) -> Codec:
    """Train the autoencoder and fold the latent scale into it, or load it if this folder has it. One that
    was exported before (`init`) keeps its encoder, so that latents keep their meaning for the transformer:
    its decoder alone is trained on."""
    codec = start_codec(init, device)
    done = work / "codec.pt"
    if done.exists():
        codec.load_state_dict(torch.load(done, map_location=device))
        return codec.eval()
    pool.wait(min(1024, pool.capacity))
    average = Average(codec, 0.998)
    trained = [p for p in codec.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, s.codec_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=device.type == "cuda")
    step_loss = codec_step(codec, s, device)
    fast = None
    begun = time.time()
    for step in itertools.count():
        progress = (time.time() - begun) / max(1e-6, 60 * minutes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s.codec_rate, step, progress, 200)
        whole, half = progress > 0.88, progress <= 0.88 and step % 4 == 3  # group norms see whole pictures in use
        x = crops(pool.images[: pool.count], max(1, s.codec_batch // 4) if whole else s.codec_batch, 512 if whole else 256)
        if s.compiled and fast is None and (work / "warm_codec").exists():
            fast = torch.compile(step_loss, dynamic=False)
        run = step_loss if whole or half or fast is None else fast
        loss, parts = run(x.contiguous(memory_format=torch.channels_last), half)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        if step % s.codec_log == 0:
            error, kl = parts.tolist()
            print(f"codec step {step} {time.time() - begun:.0f} s: error {error:.4f} kl {kl:.3f} pictures {pool.count}", flush=True)
    average.swap()
    codec.eval()
    with torch.no_grad(), autocast(device):
        sample = torch.cat([codec.moments(to_float(pool.images[i : i + 16]))[0] for i in range(0, min(512, pool.count), 16)])
        if not init:
            codec.fold(sample.mean().item(), sample.std().item())
    with torch.no_grad(), autocast(device):  # a new context: autocast keeps the weights that it narrowed
        check = codec.latent(to_float(pool.images[:16]))
        used = sample.std(dim=(0, 2, 3))
        x = to_float(pool.images[:16])
        error = (codec.picture(codec.latent(x)).float().clamp(-1, 1) - x).square().mean()
    print(f"codec: {step} steps, latent mean {check.mean():.3f} deviation {check.std():.3f}, "
          f"channels {[round(v, 2) for v in used.tolist()]}, PSNR {10 * math.log10(4 / error.item()):.1f} dB", flush=True)
    torch.save(codec.state_dict(), done)
    return codec


def latents_of(codec: Codec, s: Settings) -> Callable[[Tensor], Tensor]:
    return torch.compile(codec.latent, dynamic=False) if s.compiled else codec.latent
