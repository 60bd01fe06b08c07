"""The two training stages of the demo checkpoint: `train_codec`, then `train_flow`."""

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

import demo_eval
import demo_files
from demo_codec import Codec
from demo_data import Pool, Tokenizers, to_float
from demo_model import CLIP, CODEC, FLUX, T5, ClipText, Flux, T5Encoder, pack, position_ids, rope
from demo_text import T5_LENGTH


@dataclass
class Settings:
    pool: int = 48_000  # pictures held on the device while the autoencoder trains
    store: int = 48_000  # latents that the flow trains on
    codec_batch: int = 32  # 256 x 256 crops; a quarter of it for whole pictures
    flow_batch: tuple[int, int] = (128, 64)  # at 256 x 256, at 512 x 512
    codec_rate: float = 1.2e-3
    flow_rate: float = 1e-3
    kl: float = 2e-4
    compiled: bool = True
    workers: int = 11
    slots: int = 96
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
        progress = (time.time() - begun) / (60 * minutes)
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
    print(f"codec: {step} steps, latent mean {check.mean():.3f} deviation {check.std():.3f}, channels {[round(v, 2) for v in used.tolist()]}, "
          f"PSNR {10 * math.log10(4 / error.item()):.1f} dB", flush=True)
    torch.save(codec.state_dict(), done)
    return codec


def latents_of(codec: Codec, s: Settings) -> Callable[[Tensor], Tensor]:
    return torch.compile(codec.latent, dynamic=False) if s.compiled else codec.latent


class Store:
    """Latents of the pool's pictures at both sizes, (N, 16, 64, 64) and (N, 16, 32, 32), and their token ids."""

    def __init__(self, pool: Pool, codec: Codec, s: Settings, device: torch.device) -> None:
        begun = time.time()
        count = min(s.store, pool.capacity)
        self.full = torch.empty(count, 16, 64, 64, dtype=torch.float16, device=device)
        self.half = torch.empty(count, 16, 32, 32, dtype=torch.float16, device=device)
        encode = latents_of(codec, s)
        batch = min(64, count)
        for i in range(0, count - count % batch, batch):
            pool.wait(i + batch)
            x = to_float(pool.images[i : i + batch]).contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), autocast(device):
                self.full[i : i + batch] = encode(x).half()
                self.half[i : i + batch] = encode(F.avg_pool2d(x, 2)).half()
        self.count = count - count % batch
        self.text = pool.text
        del pool.images
        pool.ring.stop()
        print(f"latents: {self.count} in {time.time() - begun:.0f} s, deviation {self.full[:512].float().std():.3f} "
              f"and {self.half[:512].float().std():.3f}", flush=True)

    def batch(self, size: int, low: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Packed latents (B, tokens, 64), T5 ids (B, 256), CLIP ids (B, 77) of random scenes and wordings."""
        i = torch.randint(self.count, (size,), device=self.full.device)
        k = torch.randint(self.text.shape[1], (size,), device=self.full.device)
        text = self.text[i, k].long()
        latent = (self.half if low else self.full)[i].float()
        return pack(latent), text[:, :T5_LENGTH], text[:, T5_LENGTH:]


def draw_times(count: int, low: bool, device: torch.device) -> Tensor:
    """Logit-normal times with a little of the uniform; more noise at the larger size, where neighbouring
    latents tell more about each other."""
    t = torch.sigmoid(torch.randn(count, device=device))
    t = torch.where(torch.rand(count, device=device) < 0.15, torch.rand(count, device=device), t)
    shift = 1.2 if low else 1.8
    return shift * t / (1 + (shift - 1) * t)


def flow_loss(models: nn.ModuleDict, latent: Tensor, t5_ids: Tensor, clip_ids: Tensor, low: bool, table: Tensor) -> Tensor:
    """Flow matching: x_t = (1 - t) picture + t noise, the model tells noise - picture."""
    noise, t = torch.randn_like(latent), draw_times(len(latent), low, latent.device)
    mixed = torch.lerp(latent, noise, t[:, None, None])
    with autocast(latent.device):
        velocity = models["flux"](mixed, models["t5"](t5_ids), models["clip"](clip_ids), t, table)
    return F.mse_loss(velocity.float(), noise - latent)


def flow_models(tokenizers: Tokenizers, s: Settings, device: torch.device) -> tuple[nn.ModuleDict, dict[bool, Tensor]]:
    """The three models that train together, and the rotations for low and full size."""
    models = nn.ModuleDict({"flux": Flux(**FLUX), "clip": ClipText(tokenizers.clip.vocabulary, **CLIP), "t5": T5Encoder(tokenizers.t5.rows, **T5)})
    if s.compiled:
        compile_blocks(models, ("DoubleBlock", "SingleBlock", "T5Block", "ClipLayer", "FinalLayer"))
    tables = {low: rope(position_ids(n, n, T5_LENGTH, stretch)).to(device) for low, n, stretch in ((True, 16, 2.0), (False, 32, 1.0))}
    return models.to(device), tables


def warm(kind: str, work: Path, init: Path | None, tokenizers: Tokenizers, s: Settings, device: torch.device) -> None:
    """Compile one stage's kernels into the shared cache, in a process beside the training."""
    if kind == "codec":
        codec = start_codec(init, device)
        x = torch.rand(s.codec_batch, 3, 256, 256, device=device).contiguous(memory_format=torch.channels_last)
        torch.compile(codec_step(codec, s, device), dynamic=False)(x, False)[0].backward()
        (work / "warm_codec").touch()
        encode = latents_of(codec.eval(), s)
        x = torch.rand(64, 3, 512, 512, device=device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(device):
            encode(x)
            encode(F.avg_pool2d(x, 2))
    else:
        models, tables = flow_models(tokenizers, s, device)
        for low, batch, tokens in ((True, s.flow_batch[0], 256), (False, s.flow_batch[1], 1024)):
            ids = torch.zeros(batch, T5_LENGTH, dtype=torch.long, device=device)
            flow_loss(models, torch.randn(batch, tokens, 64, device=device), ids, ids[:, :77], low, tables[low]).backward()
    print(f"warm: {kind} kernels compiled", flush=True)


def train_flow(work: Path, pool: Pool, codec: Codec, tokenizers: Tokenizers, s: Settings, until: float,
               low_share: float, init: Path | None, device: torch.device) -> tuple[Codec, Flux, ClipText, T5Encoder]:
    """Train transformer and encoders together until that time; returns all four models with averaged weights."""
    models, tables = flow_models(tokenizers, s, device)
    flux, clip, t5 = models["flux"], models["clip"], models["t5"]
    saved = work / "flow.pt"
    if init and not saved.exists():
        for model, name in ((flux, "flux_demo"), (clip, "clip_l"), (t5, "t5xxl")):
            model.load_state_dict(demo_files.widened(demo_files.load(init / f"{name}.safetensors")))
    average = Average(models, 0.998)
    optimizer = torch.optim.AdamW(models.parameters(), s.flow_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda")
    step, earlier, seen = 0, 0.0, 0
    if saved.exists():
        state = torch.load(saved, map_location=device)
        models.load_state_dict(state["models"])
        optimizer.load_state_dict(state["optimizer"])
        average.mean, average.steps = state["mean"], state["step"]
        step, earlier, seen = state["step"], state["seconds"], state["seen"]
        if not state["low"]:
            low_share = 0.0
    store = Store(pool, codec, s, device)
    def save() -> None:
        torch.save({"models": models.state_dict(), "optimizer": optimizer.state_dict(), "mean": average.mean, "step": step,
                    "seconds": earlier + time.time() - begun, "seen": seen, "low": low}, saved)

    begun = last = saved_at = time.time()
    sums, low = torch.zeros(2, device=device), low_share > 0
    while True:
        elapsed = time.time() - begun
        progress = elapsed / max(5.0, until - begun)
        if progress >= 1:
            break
        low = progress < low_share
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s.flow_rate, step, progress, 300)
        latent, t5_ids, clip_ids = store.batch(s.flow_batch[0 if low else 1], low)
        loss = flow_loss(models, latent, t5_ids, clip_ids, low, tables[low])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        average.update()
        sums += torch.stack([loss.detach(), torch.ones((), device=device)])
        step, seen = step + 1, seen + len(latent)
        if step % s.flow_log == 0:
            total, n = sums.tolist()
            sums.zero_()
            print(f"flow step {step} {elapsed:.0f} s: loss {total / n:.4f} {'256' if low else '512'} seen {seen} "
                  f"{s.flow_log * len(latent) / (time.time() - last):.0f}/s", flush=True)
            last = time.time()
            if (work / "preview").exists():  # touch WORK/preview to see what it draws by now
                (work / "preview").unlink()
                average.swap()
                demo_eval.export(work / "preview_files", codec, flux, clip, t5)
                average.swap()
                demo_eval.evaluate(work / "preview_files", tokenizers, 36, s.steps, device, mus=(0.0,))
            if last - saved_at > s.save_seconds:
                saved_at = last
                save()
                average.swap()
                demo_eval.export(work / "export", codec, flux, clip, t5)
                average.swap()
    save()
    average.swap()
    print(f"flow: {step} steps, {seen} samples, {earlier + time.time() - begun:.0f} s", flush=True)
    return codec, flux, clip, t5
