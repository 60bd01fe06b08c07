"""Small tokenizers of the demo's own: byte-level BPE as CLIP has it, sentencepiece unigram as T5 has it."""

from __future__ import annotations

import collections
import html
import io
from pathlib import Path
from typing import Iterable

import numpy as np
import regex
import sentencepiece

CLIP_LENGTH = 77
T5_LENGTH = 256
T5_EXTRA_IDS = 100  # rows that T5 keeps behind the pieces for <extra_id_N>

_WORDS = regex.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


def byte_letters() -> dict[int, str]:
    """A printable letter for every byte, in the order in which CLIP's vocabulary lists them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}


class ClipTokenizer:
    """Vocabulary: 256 bytes, 256 bytes at a word's end, the merges, start, end."""

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        self.letters = byte_letters()
        base = list(self.letters.values())
        words = base + [b + "</w>" for b in base] + [a + b for a, b in merges]
        self.start, self.end = len(words), len(words) + 1
        self.vocabulary = len(words) + 2
        self.ids = {w: i for i, w in enumerate(words)}
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        self.cache: dict[str, list[int]] = {}

    @classmethod
    def load(cls, path: Path) -> "ClipTokenizer":
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        return cls([tuple(line.split()) for line in lines if line.strip()])  # type: ignore[misc]

    def _symbols(self, word: str) -> list[str]:
        letters = [self.letters[b] for b in word.encode("utf-8")]
        return [*letters[:-1], letters[-1] + "</w>"]

    def _word(self, word: str) -> list[int]:
        if word not in self.cache:
            parts = self._symbols(word)
            while len(parts) > 1:
                rank, i = min((self.ranks.get(p, 1 << 30), i) for i, p in enumerate(zip(parts, parts[1:])))
                if rank == 1 << 30:
                    break
                pair = (parts[i], parts[i + 1])
                merged, j = [], 0
                while j < len(parts):
                    if j + 1 < len(parts) and (parts[j], parts[j + 1]) == pair:
                        merged.append(parts[j] + parts[j + 1])
                        j += 2
                    else:
                        merged.append(parts[j])
                        j += 1
                parts = merged
            self.cache[word] = [self.ids[p] for p in parts]
        return self.cache[word]

    @staticmethod
    def words(text: str) -> list[str]:
        text = html.unescape(html.unescape(text)).strip()
        return _WORDS.findall(regex.sub(r"\s+", " ", text).lower())

    def tokens(self, text: str) -> list[int]:
        return [i for w in self.words(text) for i in self._word(w)]

    def encode(self, text: str) -> np.ndarray:
        """(77,) int16: start, at most 75 tokens, end, padded with end."""
        ids = [self.start, *self.tokens(text)[: CLIP_LENGTH - 2]]
        return np.asarray(ids + [self.end] * (CLIP_LENGTH - len(ids)), np.int16)


def learn_merges(captions: Iterable[str], count: int) -> list[tuple[str, str]]:
    """Byte-pair encoding: merge the most frequent neighbours, ties broken by their spelling."""
    plain = ClipTokenizer([])
    frequency = collections.Counter(w for c in captions for w in plain.words(c))
    words = [(plain._symbols(w), n) for w, n in sorted(frequency.items())]
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for parts, n in words:
            for pair in zip(parts, parts[1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for parts, _ in words:
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = [best[0] + best[1]]
                i += 1
    return merges


def save_merges(path: Path, merges: list[tuple[str, str]]) -> None:
    path.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")


def train_sentencepiece(captions: list[str], pieces: int) -> bytes:
    """A T5-style unigram model: pad 0, end 1, unknown 2, no beginning; every ASCII letter has a piece."""
    # Candidate pieces are substrings of at least two different words: a plural of each makes it one.
    words = sorted({w.strip(".,") for c in captions for w in c.split()})
    captions = captions + [w + "s" for w in words] * 2
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions), model_writer=model, model_type="unigram", vocab_size=pieces,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0, hard_vocab_limit=False,
        required_chars="".join(chr(c) for c in range(33, 127)), normalization_rule_name="nmt_nfkc",
        num_threads=1, minloglevel=2, input_sentence_size=20000, shuffle_input_sentence=False,
    )
    return model.getvalue()


class T5Tokenizer:
    def __init__(self, model: bytes) -> None:
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.rows = self.pieces.get_piece_size() + T5_EXTRA_IDS

    def encode(self, text: str) -> np.ndarray:
        """(256,) int16: pieces, end (1), padded with 0."""
        ids = [*self.pieces.encode(text)[: T5_LENGTH - 1], 1]
        return np.asarray(ids + [0] * (T5_LENGTH - len(ids)), np.int16)
