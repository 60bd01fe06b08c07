"""PyTorch text of the demo's autoencoder: 8 x smaller, 16 channels, the original files' names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_model import LATENT_SCALE, LATENT_SHIFT


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(i), nn.Conv2d(i, o, 3, padding=1)
        self.norm2, self.conv2 = group_norm(o), nn.Conv2d(o, o, 3, padding=1)
        if i != o:
            self.nin_shortcut = nn.Conv2d(i, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = group_norm(c)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (p(y).flatten(2).transpose(1, 2)[:, None].contiguous() for p in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(out)


class Downsample(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(c: int) -> nn.ModuleDict:
    return nn.ModuleDict({"block_1": ResBlock(c, c), "attn_1": AttnBlock(c), "block_2": ResBlock(c, c)})


class Half(nn.Module):
    """What encoder and decoder share: the middle and the head."""

    def __init__(self, enter: tuple[int, int], middle: int, leave: tuple[int, int]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(*enter, 3, padding=1)
        self.mid = _middle(middle)
        self.norm_out, self.conv_out = group_norm(leave[0]), nn.Conv2d(*leave, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.mid["block_2"](self.mid["attn_1"](self.mid["block_1"](x)))

    def head(self, x: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.norm_out(x)))


class Encoder(Half):
    def __init__(self, widths: list[int], blocks: int, latent: int) -> None:
        super().__init__((3, widths[0]), widths[-1], (widths[-1], 2 * latent))
        self.down, c = nn.ModuleList(), widths[0]
        for level, width in enumerate(widths):
            stage = nn.Module()
            stage.block = nn.ModuleList(ResBlock(c if b == 0 else width, width) for b in range(blocks))
            if level + 1 < len(widths):
                stage.downsample = Downsample(width)
            self.down.append(stage)
            c = width

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for stage in self.down:
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "downsample"):
                x = stage.downsample(x)
        return self.head(self.middle(x))


class Decoder(Half):
    def __init__(self, widths: list[int], blocks: int, latent: int) -> None:
        super().__init__((latent, widths[-1]), widths[-1], (widths[0], 3))
        stages, c = [], widths[-1]
        for level in reversed(range(len(widths))):
            stage = nn.Module()
            stage.block = nn.ModuleList(ResBlock(c if b == 0 else widths[level], widths[level]) for b in range(blocks + 1))
            if level:
                stage.upsample = Upsample(widths[level])
            stages.insert(0, stage)
            c = widths[level]
        self.up = nn.ModuleList(stages)

    def forward(self, z: Tensor) -> Tensor:
        x = self.middle(self.conv_in(z))
        for stage in reversed(self.up):
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "upsample"):
                x = stage.upsample(x)
        return self.head(x)


class Codec(nn.Module):
    """Pictures (B, 3, H, W) in -1..1 to latents (B, 16, H/8, W/8) and back."""

    def __init__(self, base: int, multipliers: tuple[int, ...], blocks: int, latent: int) -> None:
        super().__init__()
        widths = [base * m for m in multipliers]
        self.encoder, self.decoder = Encoder(widths, blocks, latent), Decoder(widths, blocks, latent)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.encoder(x).float().chunk(2, dim=1)
        return mean, logvar.clamp(-30, 10)

    def latent(self, x: Tensor) -> Tensor:
        """What the transformer sees of a picture: zero mean, unit deviation once `fold` was called."""
        return (self.moments(x)[0] - LATENT_SHIFT) * LATENT_SCALE

    def picture(self, latent: Tensor) -> Tensor:
        return self.decoder(latent / LATENT_SCALE + LATENT_SHIFT)

    @torch.no_grad()
    def fold(self, mean: float, deviation: float) -> None:
        """Move latents of this mean and deviation to Flux's (shift 0.1159, deviation 1 / 0.3611)
        by rewriting the last encoder and the first decoder convolution. The decoder's zero padding
        then stands for a latent that is off by a constant near zero: seen by no eye."""
        stretch = 1.0 / (deviation * LATENT_SCALE)
        out, half = self.encoder.conv_out, self.encoder.conv_out.out_channels // 2
        out.weight[:half] *= stretch
        out.bias[:half] = (out.bias[:half] - mean) * stretch + LATENT_SHIFT
        out.bias[half:] += 2 * torch.tensor(stretch).log()
        enter = self.decoder.conv_in
        enter.bias += (mean - LATENT_SHIFT / stretch) * enter.weight.sum(dim=(1, 2, 3))
        enter.weight /= stretch
