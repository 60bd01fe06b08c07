"""The second training stage of the demo checkpoint: `train_flow`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import demo_eval
import demo_files
from demo_attributes import Heads
from demo_codec import Codec
from demo_data import Pool, Tokenizers, to_float
from demo_model import CLIP, FLUX, T5, ClipText, Flux, T5Encoder, pack, position_ids, rope
from demo_optimizer import Muon, split
from demo_text import T5_LENGTH
from demo_train import Average, Settings, autocast, codec_step, compile_blocks, latents_of, learning_rate, start_codec

SHORT = 96  # T5 tokens at the low size: every caption fits, and half of the tokens would be padding otherwise
HEADS_SHARE = 0.02  # of the attribute heads' loss while the transformer trains


class Store:
    """Latents of the pool's pictures at both sizes, (N, 16, 64, 64) and (N, 16, 32, 32), and all that is told of them."""

    def __init__(self, pool: Pool, codec: Codec, tokenizers: Tokenizers, s: Settings, device: torch.device) -> None:
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
        self.text, self.labels, self.emphasis = pool.text, pool.labels, pool.emphasis
        self.empty = empty_text(tokenizers).to(device)
        self.dropout = s.dropout
        del pool.images
        pool.ring.stop()
        print(f"latents: {self.count} in {time.time() - begun:.0f} s, deviation {self.full[:512].float().std():.3f} "
              f"and {self.half[:512].float().std():.3f}", flush=True)

    def batch(self, size: int, low: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Packed latents (B, tokens, 64), their emphasis (B, tokens, 1), T5 ids, CLIP ids and labels of random scenes
        and wordings, some of them the empty one."""
        device = self.full.device
        i = torch.randint(self.count, (size,), device=device)
        k = torch.randint(self.text.shape[1], (size,), device=device)
        untold = (torch.rand(size, device=device) < self.dropout)[:, None]
        text = torch.where(untold, self.empty, self.text[i, k]).long()
        wanted = torch.where(untold, 0, self.labels[i, k]).long()
        latent, weight = (self.half if low else self.full)[i].float(), self.emphasis[i].float()
        if low:
            weight = F.max_pool2d(weight, 2)
        return pack(latent), weight.flatten(1)[..., None], text[:, : SHORT if low else T5_LENGTH], text[:, T5_LENGTH:], wanted


def empty_text(tokenizers: Tokenizers) -> Tensor:
    """(333,) int16: both encoders' ids of the empty caption."""
    return torch.from_numpy(np.concatenate([tokenizers.t5.encode(""), tokenizers.clip.encode("")]))


def draw_times(count: int, low: bool, device: torch.device) -> Tensor:
    """Logit-normal times with a little of the uniform; more noise at the larger size, where neighbouring
    latents tell more about each other."""
    t = torch.sigmoid(torch.randn(count, device=device))
    t = torch.where(torch.rand(count, device=device) < 0.15, torch.rand(count, device=device), t)
    shift = 1.2 if low else 1.8
    return shift * t / (1 + (shift - 1) * t)


def flow_loss(models: nn.ModuleDict, heads: Heads, latent: Tensor, weight: Tensor, t5_ids: Tensor, clip_ids: Tensor, wanted: Tensor,
              low: bool, table: Tensor) -> tuple[Tensor, Tensor]:
    """Flow matching: x_t = (1 - t) picture + t noise, the model tells noise - picture. The loss, and the plain error."""
    noise, t = torch.randn_like(latent), draw_times(len(latent), low, latent.device)
    mixed = torch.lerp(latent, noise, t[:, None, None])
    with autocast(latent.device):
        context, pooled = models["t5"](t5_ids), models["clip"](clip_ids)
        velocity = models["flux"](mixed, context, pooled, t, table)
    error = (velocity.float() - (noise - latent)).square()
    told, _ = heads(pooled, context, wanted)
    return (error * weight).mean() / weight.mean() + HEADS_SHARE * told, error.detach().mean()


def flow_models(tokenizers: Tokenizers, s: Settings, device: torch.device) -> tuple[nn.ModuleDict, dict[bool, Tensor]]:
    """The three models that train together, and the rotations for low and full size."""
    models = nn.ModuleDict({"flux": Flux(**FLUX), "clip": ClipText(tokenizers.clip.vocabulary, **CLIP),
                            "t5": T5Encoder(tokenizers.t5.rows, **T5)})
    if s.compiled:
        compile_blocks(models, ("DoubleBlock", "SingleBlock", "T5Block", "ClipLayer", "FinalLayer"))
    tables = {low: rope(position_ids(n, n, words, stretch)).to(device)
              for low, n, words, stretch in ((True, 16, SHORT, 2.0), (False, 32, T5_LENGTH, 1.0))}
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
        heads = Heads(CLIP["width"], T5["width"]).to(device)
        for low, batch, tokens, words in ((True, s.flow_batch[0], 256, SHORT), (False, s.flow_batch[1], 1024, T5_LENGTH)):
            ids = torch.zeros(batch, words, dtype=torch.long, device=device)
            latent = torch.randn(batch, tokens, 64, device=device)
            flow_loss(models, heads, latent, latent[..., :1].abs(), ids, ids[:, :77], ids[:, : heads.query.shape[0]], low,
                      tables[low])[0].backward()
    print(f"warm: {kind} kernels compiled", flush=True)


def train_text(models: nn.ModuleDict, heads: Heads, pool: Pool, s: Settings, device: torch.device) -> None:
    """Teach the encoders what captions name, as long as pictures are still being drawn."""
    parameters = [*models["t5"].parameters(), *models["clip"].parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, s.text_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda")
    pool.wait(min(4096, pool.capacity))
    begun, step, right = time.time(), 0, 0.0
    while pool.count < pool.capacity or right < 0.99 and step < s.text_steps:
        for group in optimizer.param_groups:
            group["lr"] = s.text_rate * min(1.0, (step + 1) / 200) * (0.3 if right > 0.98 else 1.0)
        i = torch.randint(pool.count, (s.text_batch,), device=device)
        k = torch.randint(pool.text.shape[1], (s.text_batch,), device=device)
        ids = pool.text[i, k].long()
        with autocast(device):
            context, pooled = models["t5"](ids[:, :SHORT]), models["clip"](ids[:, T5_LENGTH:])
        loss, found = heads(pooled, context, pool.labels[i, k].long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % s.text_log == 0:
            right = found.item()
            print(f"text step {step} {time.time() - begun:.0f} s: loss {loss.item():.4f} right {right:.4f} pictures {pool.count}",
                  flush=True)


def train_flow(work: Path, pool: Pool, codec: Codec, tokenizers: Tokenizers, s: Settings, until: float,
               low_share: float, init: Path | None, device: torch.device) -> tuple[Codec, Flux, ClipText, T5Encoder]:
    """Train transformer and encoders together until that time; returns all four models with averaged weights."""
    models, tables = flow_models(tokenizers, s, device)
    heads = Heads(CLIP["width"], T5["width"]).to(device)
    flux, clip, t5 = models["flux"], models["clip"], models["t5"]
    saved = work / "flow.pt"
    if init and not saved.exists():
        for model, name in ((flux, "flux_demo"), (clip, "clip_l"), (t5, "t5xxl")):
            model.load_state_dict(demo_files.widened(demo_files.load(init / f"{name}.safetensors")))
    if not saved.exists():
        train_text(models, heads, pool, s, device)
    average = Average(models, 0.998)
    hidden, rest = split(models)
    muon = Muon(hidden)
    optimizer = torch.optim.AdamW([*rest, *heads.parameters()], s.flow_rate, betas=(0.9, 0.98), weight_decay=0.01,
                                  fused=device.type == "cuda")
    step, earlier, seen = 0, 0.0, 0
    if saved.exists():
        state = torch.load(saved, map_location=device)
        models.load_state_dict(state["models"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        muon.buffers = state["muon"]
        average.mean, average.steps = state["mean"], state["step"]
        step, earlier, seen = state["step"], state["seconds"], state["seen"]
        if not state["low"]:
            low_share = 0.0
    store = Store(pool, codec, tokenizers, s, device)

    def save() -> None:
        torch.save({"models": models.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict(), "muon": muon.buffers,
                    "mean": average.mean, "step": step, "seconds": earlier + time.time() - begun, "seen": seen, "low": low}, saved)

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
        latent, *told = store.batch(s.flow_batch[0 if low else 1], low)
        loss, error = flow_loss(models, heads, latent, *told, low, tables[low])
        for p in models.parameters():
            p.grad = None
        heads.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(rest, 1.0)
        optimizer.step()
        muon.step(learning_rate(s.muon_rate, step, progress, 300))
        average.update()
        sums += torch.stack([error, torch.ones((), device=device)])
        step, seen = step + 1, seen + len(latent)
        if step % s.flow_log == 0:
            total, n = sums.tolist()
            sums.zero_()
            print(f"flow step {step} {elapsed:.0f} s: error {total / n:.4f} {'256' if low else '512'} seen {seen} "
                  f"{s.flow_log * len(latent) / (time.time() - last):.0f}/s", flush=True)
            last = time.time()
            if (work / "preview").exists():  # touch WORK/preview to see what it draws by now
                (work / "preview").unlink()
                average.swap()
                demo_eval.export(work / "preview_files", codec, flux, clip, t5)
                average.swap()
                demo_eval.evaluate(work / "preview_files", tokenizers, 48, s.steps, device, guidances=(3.0,))
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
