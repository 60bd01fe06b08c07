"""Safetensors files of the demo: written and read here in a few lines, with ComfyUI's scaled fp8."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}
NAMES = {v: k for k, v in DTYPES.items()}
FP8_MAX = 448.0


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    header, offset, blobs = {}, 0, []
    for name, tensor in sorted(tensors.items()):
        blob = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def load(path: Path) -> dict[str, Tensor]:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        a, b = (8 + size + o for o in entry["data_offsets"])
        raw = torch.frombuffer(bytearray(data[a:b]), dtype=torch.uint8) if b > a else torch.empty(0, dtype=torch.uint8)
        tensors[name] = raw.view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def scaled_fp8(state: dict[str, Tensor], linears: set[str]) -> dict[str, Tensor]:
    """Linear weights as e4m3 with one fp32 scale each, the rest in bf16."""
    out: dict[str, Tensor] = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for name, tensor in state.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in linears:
            scale = (tensor.float().abs().max() / FP8_MAX).clamp(min=1e-12)
            out[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            out[f"{module}.scale_weight"] = scale.reshape(1)
        else:
            out[name] = tensor.to(torch.bfloat16)
    return out


def widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The fp32 state that such a file stands for."""
    out = {}
    for name, tensor in tensors.items():
        if name == "scaled_fp8" or name.endswith(".scale_weight"):
            continue
        scale = tensors.get(name.removesuffix(".weight") + ".scale_weight")
        out[name] = tensor.float() * (scale if scale is not None else 1.0)
    return out


def linear_names(model: torch.nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
