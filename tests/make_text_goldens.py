"""Makes goldens/text_*.safetensors and goldens/embeddings/: small CLIP-L and CLIP-G as checkpoints hold them, textual inversions, and what
SD 1, SD 2, SDXL and its refiner are told of prompts.

    python make_text_goldens.py    # environment: golden_requirements.txt; after make_picture_goldens.py

States are transformers'; layers, weights, chunks, textual inversions and the contexts' concatenation follow ComfyUI, BREAK follows
A1111. A textual inversion's vectors stand at the end of the encoder's table here, as tokens of their own.
"""
import copy
import json
import os

import torch
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import save_file

from make_encoder_goldens import GOLDENS, random_clip, weigh
from make_picture_goldens import clip_tokenizer
from make_token_goldens import chunks

WORDS = "a small red house beside the water, and trees under the mountains at night"
PROMPTS = [
    "", WORDS, "two boats on the lake", "A Boat", "a 🦊 in the ❄️ snow, 👨‍👩‍👧 on the lake", "一只红色的狐狸, café", "line\nbreak\tand  blanks ",
    "a (red house:1.3) by ((the lake)), (dark (sky:0.6) and snow)", "\\(a\\) (boat \\(small\\):0.8)", "(sun:-0.5) over (water:0)",
    "over <|endoftext|> (mountains)",
    ", ".join([WORDS] * 10), "(a lake:1.2) " + "at night " * 40 + "(boats)",
]
MARKS = [
    "a boat BREAK a lake", "BREAK (trees:1.4)", "snow BREAK", "a,BREAK,b BREAK BREAK c", "(a boat BREAK (a lake:1.3)) at night",
    "BREAKFAST, a BREAKdown, BREAK.",
    "embedding:boat", "a embedding:boat, at night", "(embedding:boat:1.4) in (the embedding:long.safetensors snow)",
    "embedding: boat BREAK embedding:boat x",
    "a " * 74 + "embedding:boat lake", "a " * 70 + "(embedding:long:0.7)", "a,embedding:boat", "by the lake embedding:uneven in snow",
]
SD1_PROMPTS = PROMPTS[:2] + [PROMPTS[7], MARKS[4], "an embedding:old boat, (embedding:older:1.2)"]
SD2_PROMPTS = PROMPTS[:2] + [PROMPTS[7], "embedding:wide, (embedding:named:0.7) lake"]


class Clip:
    """A CLIP text model with its textual inversions, {name: [n, width]}."""

    def __init__(self, model, tokenizer, pad, inversions):
        self.end, self.pad, self.tokenizer = tokenizer.eos_token_id, pad, tokenizer
        self.model, self.vectors = copy.deepcopy(model), {}
        table = [model.text_model.embeddings.token_embedding.weight]
        first = self.end + 1
        for name, rows in inversions.items():
            self.vectors[name] = list(range(first, first + len(rows)))
            first += len(rows)
            table.append(rows)
        self.model.text_model.embeddings.token_embedding = torch.nn.Embedding.from_pretrained(torch.cat(table))

    def states(self, tokens, layer, norm):
        out = self.model(torch.tensor([tokens]), output_hidden_states=True)
        hidden = out.hidden_states[layer]
        return (self.model.text_model.final_layer_norm(hidden) if norm else hidden), out.text_embeds

    def encode(self, prompt, layer, norm):
        """-> weighted hidden states of all chunks, projected pooled state of the first."""
        found = chunks(prompt, lambda s: self.tokenizer(s)["input_ids"][1:-1], self.end - 1, self.end, self.pad, 77, 77, self.vectors, True)
        empty, _ = self.states([self.end - 1, self.end] + [self.pad] * 75, layer, norm)
        run = [(self.states([t for t, _ in chunk], layer, norm), [w for _, w in chunk]) for chunk in found]
        return torch.cat([weigh(z, empty, weights) for (z, _), weights in run], dim=1), run[0][0][1]


def open_clip(state):
    """OpenCLIP's names and shapes for transformers' tensors."""
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}
    out = {"token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
           "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
           "text_projection": state["text_projection.weight"].T}
    for key, value in state.items():
        name, kind = key.rsplit(".", 1)
        if name == "text_model.final_layer_norm":
            out["ln_final." + kind] = value
        if not name.startswith("text_model.encoder.layers."):
            continue
        index, part = name.removeprefix("text_model.encoder.layers.").split(".", 1)
        block = f"transformer.resblocks.{index}."
        if part in names:
            out[f"{block}{names[part]}.{kind}"] = value
        elif part == "self_attn.q_proj":
            attention = f"text_model.encoder.layers.{index}.self_attn"
            out[f"{block}attn.in_proj_{kind}"] = torch.cat([state[f"{attention}.{x}_proj.{kind}"] for x in "qkv"])
    return out


def write(name, tensors, metadata=None):
    path = os.path.join(GOLDENS, name + ".safetensors")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file({k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, path, metadata)
    print(name, os.path.getsize(path))


def inversions(widths):
    """Files of goldens/embeddings, and for each encoder {name: vectors}."""
    torch.manual_seed(35)
    rows = lambda n, encoder: (torch.randn(n, widths[encoder]) * 0.7).half()
    files = {name: {"clip_l": rows(n, "clip_l"), "clip_g": rows(m, "clip_g")}
             for name, n, m in (("boat", 2, 2), ("long", 12, 12), ("uneven", 1, 70))}
    files["old"] = {"emb_params": rows(3, "clip_l")}
    files["older"] = {"string_to_param.*": rows(2, "clip_l"), "string_to_token.*": torch.tensor([265])}
    files["wide"] = {"emb_params": rows(1, "clip_g")}
    files["folder/named"] = {"any name": rows(1, "clip_g")[0]}
    for name, tensors in files.items():
        write("embeddings/" + name, tensors)

    def by_encoder(encoder):
        found = {}
        for name, tensors in files.items():
            tensor = tensors.get(encoder, next(iter(tensors.values()))).float()
            if tensor.shape[-1] == widths[encoder]:
                found[name.split("/")[-1]] = tensor.reshape(-1, widths[encoder])
        return found
    return by_encoder("clip_l"), by_encoder("clip_g")


def size_vector(pooled, numbers):
    sinusoids = get_timestep_embedding(torch.tensor(numbers), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    return torch.cat([pooled, sinusoids.reshape(1, -1)], dim=1)


@torch.no_grad()
def main():
    tokenizer = clip_tokenizer(GOLDENS)
    end = tokenizer.eos_token_id
    model_l = random_clip(end + 1, 64, 128, "quick_gelu", 36)
    model_g = random_clip(end + 1, 128, 192, "gelu", 37)
    state_l = {k: v.half() for k, v in model_l.state_dict().items() if not k.endswith("position_ids")}
    state_g = {k: v.half() for k, v in model_g.state_dict().items() if not k.endswith("position_ids")}
    write("text_clip_l", {"conditioner.embedders.0.transformer." + k: v for k, v in state_l.items()} |
          {"open_clip." + k: v for k, v in open_clip(state_l).items()})
    write("text_clip_g", {"conditioner.embedders.1.model." + k: v for k, v in open_clip(state_g).items()})
    inversions_l, inversions_g = inversions({"clip_l": 64, "clip_g": 128})
    clip_l, clip_g = Clip(model_l, tokenizer, end, inversions_l), Clip(model_g, tokenizer, 0, inversions_g)

    def sdxl(prompt, layer=-2):
        # transformers' hidden_states begin with the embeddings, so that -2 is the output of the last layer but one, as in ComfyUI.
        hidden_l, _ = clip_l.encode(prompt, layer, norm=False)
        hidden_g, pooled = clip_g.encode(prompt, layer, norm=False)
        tokens = min(hidden_l.shape[1], hidden_g.shape[1])
        return torch.cat([hidden_l[:, :tokens], hidden_g[:, :tokens]], dim=2), pooled

    for name, prompts in (("prompts", PROMPTS), ("marks", MARKS)):
        out = {}
        for i, prompt in enumerate(prompts):
            out[f"{i}.context"], out[f"{i}.pooled"] = sdxl(prompt)
            print(name, i, tuple(out[f"{i}.context"].shape), repr(prompt[:60]))
        write("text_" + name, out, {"prompts": json.dumps(prompts)})

    out = {}
    for i, prompt in enumerate(SD1_PROMPTS):
        out[f"sd1.{i}"], _ = clip_l.encode(prompt, -1, norm=True)
    for i, prompt in enumerate(SD2_PROMPTS):
        out[f"sd2.{i}"], _ = clip_g.encode(prompt, -2, norm=True)
    for layer in (-1, -3):
        out[f"sdxl.layer{layer}"], out["sdxl.pooled"] = sdxl(PROMPTS[7], layer)
        out[f"sd1.layer{layer}"], _ = clip_l.encode(PROMPTS[7], layer, norm=True)
    pooled = torch.randn(1, 1280)
    out["size.pooled"] = pooled
    out["size.sdxl"] = size_vector(pooled, [1216.0, 832.0, 0.0, 0.0, 1216.0, 832.0])
    for sign, score in (("positive", 6.0), ("negative", 2.5)):
        out["size.refiner_" + sign] = size_vector(pooled, [1216.0, 832.0, 0.0, 0.0, score])
    write("text_cases", out, {"sd1": json.dumps(SD1_PROMPTS), "sd2": json.dumps(SD2_PROMPTS), "skipped": PROMPTS[7]})


if __name__ == "__main__":
    main()
