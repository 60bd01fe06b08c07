"""Makes goldens/encoders.safetensors: what transformers' CLIP and T5 encoders give for the picture goldens' small models, and for a
CLIP-G-like one whose weights lie in the file itself.

    python make_encoder_goldens.py    # environment: golden_requirements.txt; after make_picture_goldens.py

Weighted prompts follow ComfyUI's arithmetic: z = (z - z_empty) * w + z_empty token by token, pooled from the first chunk, unweighted.
"""
import os

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from make_picture_goldens import Encoders
from make_token_goldens import chunks

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "goldens")
PROMPT = "a small red house beside the water, and trees"
WEIGHTED = ("a (small red house:1.4) beside (the water:0.6), \\(and\\) ((trees)) at night, " * 5) \
    + "over <|endoftext|> (mountains) in the snow"
PREFIX = "text_encoders.clip_g.transformer."


def weigh(z, empty, weights):
    z = z.clone()
    for i, w in enumerate(weights):
        if w != 1.0:
            z[0, i] = (z[0, i] - empty[0, i]) * w + empty[0, i]
    return z


def random_clip(vocabulary, width, mlp, act, seed):
    """Three layers, heads of 64, a projection; every value one of fp16's."""
    torch.manual_seed(seed)
    model = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=mlp, num_hidden_layers=3, num_attention_heads=width // 64,
        hidden_act=act,
        projection_dim=width, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.copy_(torch.randn_like(p) * 0.2 + ("norm" in name and name.endswith("weight")))
            elif "embedding" not in name:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
            else:
                p.copy_(torch.randn_like(p) * 0.7)
            p.copy_(p.half().float())
    return model


@torch.no_grad()
def main():
    encoders = Encoders(GOLDENS)
    end = encoders.end
    out = {}

    def clip_chunks(prompt, pad):
        return chunks(prompt, lambda s: encoders.clip_tokens(s)["input_ids"][1:-1], end - 1, end, pad, 77, 77)

    def t5_chunk(prompt):
        return chunks(prompt, lambda s: encoders.t5_tokens(s)["input_ids"][:-1], None, 1, 0, 10**9, 256)[0]

    ids = torch.tensor([[t for t, _ in clip_chunks(p, end)[0]] for p in (PROMPT, "two boats <|endoftext|> on the lake", "")])
    clip = encoders.clip(ids, output_hidden_states=True)
    out["clip.ids"], out["clip.last"], out["clip.pooled"] = ids, clip.last_hidden_state, clip.pooler_output
    out["clip.second"] = clip.hidden_states[-2]
    out["clip.second_normed"] = encoders.clip.text_model.final_layer_norm(clip.hidden_states[-2])

    model = random_clip(end + 1, 64, 128, "gelu", 33)
    ids = torch.tensor([[t for t, _ in clip_chunks(PROMPT, 0)[0]]])
    big = model(ids, output_hidden_states=True)
    out["clip_g.ids"], out["clip_g.second"], out["clip_g.projected"] = ids, big.hidden_states[-2], big.text_embeds
    out["clip_g.pooled"] = model.text_model(ids).pooler_output
    out.update({PREFIX + k: v.half() for k, v in model.state_dict().items() if not k.endswith("position_ids")})

    for name, count in (("t5.short", 1), ("t5.long", 11)):
        ids = torch.tensor([[t for t, _ in t5_chunk(" ".join([PROMPT] * count))]])
        out[name + ".ids"], out[name] = ids, encoders.t5(ids).last_hidden_state
        print(name, tuple(ids.shape))

    parts = []
    empty = encoders.clip(torch.tensor([[end - 1, end] + [end] * 75])).last_hidden_state
    for chunk in clip_chunks(WEIGHTED, end):
        z = encoders.clip(torch.tensor([[t for t, _ in chunk]]))
        parts.append(weigh(z.last_hidden_state, empty, [w for _, w in chunk]))
        out.setdefault("weighted.pooled", z.pooler_output)
    out["weighted.clip"] = torch.cat(parts, dim=1)
    chunk = t5_chunk(WEIGHTED.replace("<|endoftext|> ", ""))
    z = encoders.t5(torch.tensor([[t for t, _ in chunk]])).last_hidden_state
    empty = encoders.t5(torch.tensor([[1] + [0] * (len(chunk) - 1)])).last_hidden_state
    out["weighted.t5"] = weigh(z, empty, [w for _, w in chunk])
    print("weighted", tuple(out["weighted.clip"].shape), tuple(z.shape))

    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(GOLDENS, "encoders.safetensors"),
              {"weighted": WEIGHTED, "weighted_t5": WEIGHTED.replace("<|endoftext|> ", "")})


if __name__ == "__main__":
    main()
