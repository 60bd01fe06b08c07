"""What a caption can name, as class numbers, and the small heads that read them back from the text encoders.

Flow matching alone teaches the encoders slowly: a word's effect on the loss is a few latents. Being asked what
each caption names teaches them within a minute, and the transformer then finds the answers laid out.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_scenes import ANIMAL, FOLIAGE, GROUND, MOUNTAIN, ROOF, SAIL, SIDES, TIMES, WALL

YES_NO = ("no", "yes")
COUNTS = ("1", "2", "3")
# A class's number is its value's place: the palettes' order is part of the heads' weights.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "sky": TIMES, "stars": YES_NO, "clouds": YES_NO, "rain": YES_NO, "snow": YES_NO, "birds": YES_NO,
    "sun": YES_NO, "moon": YES_NO, "light_side": SIDES, "light_size": ("small", "big"),
    "mountains": tuple(MOUNTAIN), "mountain_side": ("all", "left", "right"), "caps": YES_NO,
    "ground": tuple(GROUND), "hills": YES_NO, "water": ("lake", "sea", "river"),
    "trees": tuple(FOLIAGE), "tree_count": ("one", "few", "many"), "tree_side": SIDES,
    "houses": COUNTS, "wall": tuple(WALL), "roof": tuple(ROOF), "house_side": SIDES, "house_size": ("small", "big"),
    "boats": COUNTS, "sail": tuple(SAIL), "boat_side": SIDES,
    "animal": tuple(ANIMAL), "animals": COUNTS, "animal_side": SIDES,
}
CLASSES = 1 + max(len(values) for values in ATTRIBUTES.values())  # class 0: not named


def labels(named: list[tuple[str, str]]) -> np.ndarray:
    """(attributes,) uint8: the class of each attribute in a caption."""
    told = dict(named)
    return np.asarray([1 + values.index(told[key]) if key in told else 0 for key, values in ATTRIBUTES.items()], np.uint8)


class Heads(nn.Module):
    """Answers from the pooled CLIP state, linearly, and from T5's states, where each attribute looks for its token."""

    def __init__(self, pooled: int, context: int) -> None:
        super().__init__()
        n = len(ATTRIBUTES)
        self.from_pooled = nn.Linear(pooled, n * CLASSES)
        self.query = nn.Parameter(torch.randn(n, context) * context**-0.5)
        self.answer = nn.Parameter(torch.randn(n, context, CLASSES) * context**-0.5)

    def forward(self, pooled: Tensor, context: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and share of right answers; wanted (B, attributes)."""
        context = context.float()
        looks = (context @ self.query.T).softmax(dim=1)  # (B, tokens, attributes)
        found = torch.einsum("bta,btc->bac", looks, context)
        answers = torch.stack([self.from_pooled(pooled.float()).unflatten(-1, (-1, CLASSES)),
                               torch.einsum("bac,ack->bak", found, self.answer)])
        wanted = wanted[None].expand(2, -1, -1)
        right = (answers.argmax(dim=-1) == wanted).float().mean()
        return F.cross_entropy(answers.flatten(0, 2), wanted.flatten()), right.detach()
