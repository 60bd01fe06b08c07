"""PyTorch text of the demo's four models. Parameter names are those of the published Flux.1 files,
so that `state_dict()` is the file. Sizes are data: see FLUX, CLIP, T5 and CODEC.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLUX = dict(hidden=256, heads=2, double=2, single=8, context=256, pooled=128)
CLIP = dict(width=128, layers=2)
T5 = dict(width=256, layers=3, heads=4, mlp=512)
CODEC = dict(base=32, multipliers=(1, 2, 3, 4), blocks=1, latent=16)

AXES = (16, 56, 56)  # RoPE channels for (text, row, column) of one 128-wide head
LATENT_SCALE, LATENT_SHIFT = 0.3611, 0.1159


# --- transformer -------------------------------------------------------------------------------


def rope(ids: Tensor, theta: float = 10000.0) -> Tensor:
    """Rotations for position ids (L, 3): (L, 64, 2) of cosine and sine."""
    angles = []
    for axis, width in enumerate(AXES):
        frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width)
        angles.append(ids[:, axis : axis + 1].double() * frequency)
    angle = torch.cat(angles, dim=1)
    return torch.stack([angle.cos(), angle.sin()], dim=-1).float()


def position_ids(rows: int, columns: int, text: int, stretch: float = 1.0) -> Tensor:
    """(text + rows * columns, 3). `stretch` spreads a smaller picture over the full one's positions."""
    offset = (stretch - 1) / 2
    y = torch.arange(rows).float()[:, None].expand(rows, columns) * stretch + offset
    x = torch.arange(columns).float()[None].expand(rows, columns) * stretch + offset
    image = torch.stack([torch.zeros(rows, columns), y, x], dim=-1).reshape(-1, 3)
    return torch.cat([torch.zeros(text, 3), image])


def rotate(x: Tensor, pe: Tensor) -> Tensor:
    """Rotate neighbouring channel pairs of x (B, heads, L, 128) by pe (L, 64, 2)."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = pe.unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor) -> Tensor:
    """(B, heads, L, 128) each -> (B, L, heads * 128)."""
    out = F.scaled_dot_product_attention(rotate(q, pe), rotate(k, pe), v)
    return out.transpose(1, 2).flatten(2)


def timestep_embedding(t: Tensor, width: int = 256) -> Tensor:
    """(B,) in 0..1 -> (B, 256), cosines first."""
    frequency = torch.exp(-math.log(10000.0) * torch.arange(width // 2, device=t.device).float() / (width // 2))
    angle = (t.float() * 1000.0)[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Scale(nn.Module):
    """RMS norm with a learned scale, over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6) * self.scale).to(x.dtype)


class QKNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm, self.key_norm = Scale(width), Scale(width)


class Modulation(nn.Module):
    def __init__(self, hidden: int, parts: int) -> None:
        super().__init__()
        self.lin = nn.Linear(hidden, parts * hidden)
        self.parts = parts

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vec))[:, None].chunk(self.parts, dim=-1)


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.norm = QKNorm(hidden // heads)
        self.proj = nn.Linear(hidden, hidden)
        self.heads = heads

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, H) -> q, k, v of (B, heads, L, 128), q and k normed."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.norm.query_norm(q), self.norm.key_norm(k), v


def mlp(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden, hidden))


class DoubleBlock(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(hidden, 6), Modulation(hidden, 6)
        self.img_attn, self.txt_attn = Attention(hidden, heads), Attention(hidden, heads)
        self.img_mlp, self.txt_mlp = mlp(hidden), mlp(hidden)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        i_shift, i_scale, i_gate, i_shift2, i_scale2, i_gate2 = self.img_mod(vec)
        t_shift, t_scale, t_gate, t_shift2, t_scale2, t_gate2 = self.txt_mod(vec)
        iq, ik, iv = self.img_attn.heads_of((1 + i_scale) * norm(img) + i_shift)
        tq, tk, tv = self.txt_attn.heads_of((1 + t_scale) * norm(txt) + t_shift)
        both = attention(torch.cat([tq, iq], 2), torch.cat([tk, ik], 2), torch.cat([tv, iv], 2), pe)
        t_out, i_out = both.split([txt.shape[1], img.shape[1]], dim=1)
        img = img + i_gate * self.img_attn.proj(i_out)
        img = img + i_gate2 * self.img_mlp((1 + i_scale2) * norm(img) + i_shift2)
        txt = txt + t_gate * self.txt_attn.proj(t_out)
        txt = txt + t_gate2 * self.txt_mlp((1 + t_scale2) * norm(txt) + t_shift2)
        return img, txt


class SingleBlock(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(hidden, 7 * hidden)
        self.linear2 = nn.Linear(5 * hidden, hidden)
        self.norm = QKNorm(hidden // heads)
        self.modulation = Modulation(hidden, 3)
        self.hidden, self.heads = hidden, heads

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        qkv, wide = self.linear1((1 + scale) * norm(x) + shift).split([3 * self.hidden, 4 * self.hidden], dim=-1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = attention(self.norm.query_norm(q), self.norm.key_norm(k), v, pe)
        return x + gate * self.linear2(torch.cat([out, F.gelu(wide, approximate="tanh")], dim=-1))


class Embedder(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(width, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class FinalLayer(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear((1 + scale) * norm(x) + shift)


class Flux(nn.Module):
    """Velocity (noise - picture) of packed latents (B, tokens, 64)."""

    def __init__(self, hidden: int, heads: int, double: int, single: int, context: int, pooled: int) -> None:
        super().__init__()
        assert hidden == heads * sum(AXES), f"hidden {hidden} is not {heads} heads of {sum(AXES)}"
        self.img_in, self.txt_in = nn.Linear(64, hidden), nn.Linear(context, hidden)
        self.time_in, self.vector_in = Embedder(256, hidden), Embedder(pooled, hidden)
        self.double_blocks = nn.ModuleList(DoubleBlock(hidden, heads) for _ in range(double))
        self.single_blocks = nn.ModuleList(SingleBlock(hidden, heads) for _ in range(single))
        self.final_layer = FinalLayer(hidden, 64)
        # Every block starts as the identity and the output at zero (adaLN-zero).
        for name, p in self.named_parameters():
            if "mod" in name or name.startswith("final_layer.linear"):
                nn.init.zeros_(p)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.ndim == 2:
                nn.init.xavier_uniform_(p)

    def forward(self, img: Tensor, txt: Tensor, pooled: Tensor, t: Tensor, pe: Tensor) -> Tensor:
        vec = self.time_in(timestep_embedding(t)) + self.vector_in(pooled)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, pe)
        x = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            x = block(x, vec, pe)
        return self.final_layer(x[:, txt.shape[1] :], vec)


def pack(latent: Tensor) -> Tensor:
    """(B, 16, h, w) -> (B, h/2 * w/2, 64), channels ordered c, row, column of the 2 x 2 patch."""
    b, c, h, w = latent.shape
    return latent.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(tokens: Tensor, h: int, w: int) -> Tensor:
    b, _, c = tokens.shape
    return tokens.view(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)


# --- text encoders -----------------------------------------------------------------------------


class ClipAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, 64)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class ClipLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = ClipAttention(width)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        y = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](y * torch.sigmoid(1.702 * y))  # quick GELU


class ClipText(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        text = nn.Module()
        text.embeddings = nn.ModuleDict({"token_embedding": nn.Embedding(vocabulary, width), "position_embedding": nn.Embedding(77, width)})
        text.encoder = nn.ModuleDict({"layers": nn.ModuleList(ClipLayer(width) for _ in range(layers))})
        text.final_layer_norm = nn.LayerNorm(width)
        self.text_model = text
        self.end = vocabulary - 1
        for table in text.embeddings.values():
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, 77) -> (B, width): the normed state at the first end-of-text."""
        text = self.text_model
        x = text.embeddings["token_embedding"](ids) + text.embeddings["position_embedding"].weight
        for layer in text.encoder["layers"]:
            x = layer(x)
        x = text.final_layer_norm(x)
        return x[torch.arange(len(ids), device=ids.device), (ids == self.end).int().argmax(dim=1)]


class T5Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6) * self.weight).to(x.dtype)


def _bare(i: int, o: int) -> nn.Linear:
    return nn.Linear(i, o, bias=False)


class T5Attention(nn.Module):
    def __init__(self, width: int, heads: int, biased: bool) -> None:
        super().__init__()
        inner = heads * 64
        self.q, self.k, self.v, self.o = _bare(width, inner), _bare(width, inner), _bare(width, inner), _bare(inner, width)
        nn.init.normal_(self.q.weight, std=(width * 64) ** -0.5)  # T5 does not scale the scores: its weights do
        if biased:
            self.relative_attention_bias = nn.Embedding(32, heads)
            nn.init.normal_(self.relative_attention_bias.weight, std=0.5)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, 64)).transpose(1, 2) for p in (self.q, self.k, self.v))
        weights = ((q @ k.transpose(2, 3)).float() + bias).softmax(dim=-1).to(v.dtype)
        return self.o((weights @ v).transpose(1, 2).flatten(2))


class T5Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, biased: bool) -> None:
        super().__init__()
        attend = nn.ModuleDict({"SelfAttention": T5Attention(width, heads, biased), "layer_norm": T5Norm(width)})
        dense = nn.ModuleDict({"wi_0": _bare(width, hidden), "wi_1": _bare(width, hidden), "wo": _bare(hidden, width)})
        feed = nn.ModuleDict({"DenseReluDense": dense, "layer_norm": T5Norm(width)})
        self.layer = nn.ModuleList([attend, feed])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attend, feed = self.layer
        x = x + attend["SelfAttention"](attend["layer_norm"](x), bias)
        y, dense = feed["layer_norm"](x), feed["DenseReluDense"]
        return x + dense["wo"](F.gelu(dense["wi_0"](y), approximate="tanh") * dense["wi_1"](y))


class T5Encoder(nn.Module):
    def __init__(self, rows: int, width: int, layers: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.shared = nn.Embedding(rows, width)
        nn.init.normal_(self.shared.weight, std=0.5)
        self.encoder = nn.ModuleDict({
            "block": nn.ModuleList(T5Block(width, heads, mlp, i == 0) for i in range(layers)),
            "final_layer_norm": T5Norm(width),
        })

    def bias(self, length: int) -> Tensor:
        """(1, heads, L, L): 16 buckets a direction, 8 exact, then logarithmic up to 128."""
        table = self.encoder["block"][0].layer[0]["SelfAttention"].relative_attention_bias
        at = torch.arange(length, device=table.weight.device)
        relative = at[None, :] - at[:, None]
        distance = relative.abs()
        far = 8 + (torch.log(distance.float().clamp(min=1) / 8) / math.log(128 / 8) * 8).long()
        bucket = (relative > 0).long() * 16 + torch.where(distance < 8, distance, far.clamp(max=15))
        return table(bucket).permute(2, 0, 1)[None].float()

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, width); padding is attended to like any token."""
        x, bias = self.shared(ids), self.bias(ids.shape[1])
        for block in self.encoder["block"]:
            x = block(x, bias)
        return self.encoder["final_layer_norm"](x)
