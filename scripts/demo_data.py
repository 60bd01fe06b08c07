"""Training data made while it is used: worker processes draw scenes and word captions into a ring of
shared memory, a thread moves finished chunks to the training device."""

from __future__ import annotations

import mmap
import multiprocessing as mp
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

import demo_text
from demo_attributes import ATTRIBUTES, labels
from demo_captions import Named, caption
from demo_paint import TOKEN, paint
from demo_scenes import SIZE, sample_scene

CHUNK = 16  # scenes a slot of the ring
CAPTIONS = 4  # wordings a scene
HELDOUT_SEED = 1_000_000_000  # held-out scenes are numbered from here, training scenes from 0
VALIDATION_SEED = 2_000_000_000


@dataclass
class Tokenizers:
    clip: demo_text.ClipTokenizer
    t5: demo_text.T5Tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Tokenizers":
        return cls(demo_text.ClipTokenizer.load(folder / "clip_merges.txt"),
                   demo_text.T5Tokenizer((folder / "t5xxl_spiece.model").read_bytes()))


def words_of(seed: int, wording: int, clip: demo_text.ClipTokenizer | None = None, keep: float = 0.86) -> tuple[str, Named]:
    """The caption of a scene; one too long for CLIP's 75 tokens is worded again."""
    scene = sample_scene(seed)
    for attempt in range(50):
        text, named = caption(scene, np.random.default_rng((seed, 7, wording, attempt)), keep)
        if clip is None or len(clip.tokens(text)) <= demo_text.CLIP_LENGTH - 2:
            return text, named
    raise RuntimeError(f"no short wording for scene {seed}")


def learn_tokenizers(folder: Path, scenes: int = 12000) -> None:
    """Fit both tokenizers to captions of training scenes, unless the folder has them already."""
    if (folder / "clip_merges.txt").exists() and (folder / "t5xxl_spiece.model").exists():
        return
    captions = [words_of(seed, 0)[0] for seed in range(scenes)]
    demo_text.save_merges(folder / "clip_merges.txt", demo_text.learn_merges(captions, 640))
    (folder / "t5xxl_spiece.model").write_bytes(demo_text.train_sentencepiece(captions, 512))


class Ring:
    """Workers that draw scenes first, first + 1, ... into shared slots."""

    def __init__(self, tokenizers: Tokenizers, workers: int, slots: int, first: int = 0) -> None:
        context = mp.get_context("fork")  # before the GPU is touched
        self.memory = mmap.mmap(-1, slots * CHUNK * SIZE * SIZE * 3)
        self.images = np.frombuffer(self.memory, np.uint8).reshape(slots, CHUNK, SIZE, SIZE, 3)
        width = demo_text.T5_LENGTH + demo_text.CLIP_LENGTH
        self.text_memory = mmap.mmap(-1, slots * CHUNK * CAPTIONS * width * 2)
        self.text = np.frombuffer(self.text_memory, np.int16).reshape(slots, CHUNK, CAPTIONS, width)
        side, named = SIZE // TOKEN, len(ATTRIBUTES)
        self.emphasis_memory = mmap.mmap(-1, slots * CHUNK * side * side)
        self.emphasis = np.frombuffer(self.emphasis_memory, np.uint8).reshape(slots, CHUNK, side, side)
        self.label_memory = mmap.mmap(-1, slots * CHUNK * CAPTIONS * named)
        self.labels = np.frombuffer(self.label_memory, np.uint8).reshape(slots, CHUNK, CAPTIONS, named)
        self.free, self.ready = context.Queue(), context.Queue()
        for slot in range(slots):
            self.free.put(slot)
        self.workers = [context.Process(target=self._work, args=(tokenizers, first + w * CHUNK, workers * CHUNK), daemon=True)
                        for w in range(workers)]
        for w in self.workers:
            w.start()

    def _work(self, tokenizers: Tokenizers, first: int, stride: int) -> None:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        start = first
        while True:
            slot = self.free.get()
            for i in range(CHUNK):
                self.images[slot, i], self.emphasis[slot, i] = paint(sample_scene(start + i))
                for k in range(CAPTIONS):
                    text, named = words_of(start + i, k, tokenizers.clip)
                    self.labels[slot, i, k] = labels(named)
                    self.text[slot, i, k, : demo_text.T5_LENGTH] = tokenizers.t5.encode(text)
                    self.text[slot, i, k, demo_text.T5_LENGTH :] = tokenizers.clip.encode(text)
            self.ready.put(slot)
            start += stride

    def stop(self) -> None:
        for w in self.workers:
            w.terminate()


class Pool:
    """Pictures (capacity, 512, 512, 3) uint8, their emphasis, token ids and labels on the device, filled by a thread."""

    def __init__(self, ring: Ring, capacity: int, device: torch.device) -> None:
        capacity -= capacity % CHUNK
        self.ring, self.capacity, self.device = ring, capacity, device
        self.images = torch.empty(capacity, SIZE, SIZE, 3, dtype=torch.uint8, device=device)
        self.text = torch.empty(capacity, *ring.text.shape[2:], dtype=torch.int16, device=device)
        self.emphasis = torch.empty(capacity, *ring.emphasis.shape[2:], dtype=torch.uint8, device=device)
        self.labels = torch.empty(capacity, *ring.labels.shape[2:], dtype=torch.uint8, device=device)
        self.count = 0
        self.thread = threading.Thread(target=self._fill, daemon=True)
        self.thread.start()

    def _fill(self) -> None:
        stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        while self.count < self.capacity:
            slot = self.ring.ready.get()
            where = slice(self.count, self.count + CHUNK)
            with torch.cuda.stream(stream) if stream else torch.no_grad():
                for held, made in ((self.images, self.ring.images), (self.text, self.ring.text),
                                   (self.emphasis, self.ring.emphasis), (self.labels, self.ring.labels)):
                    held[where].copy_(torch.from_numpy(made[slot]))
            if stream:
                stream.synchronize()
            self.count += CHUNK
            self.ring.free.put(slot)

    def wait(self, count: int) -> None:
        while self.count < min(count, self.capacity):
            time.sleep(0.05)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
