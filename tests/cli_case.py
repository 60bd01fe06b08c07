"""What the tests of the binary share: running it in a folder of its own, small weight files, exact refusals."""
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

BINARY, SOURCE = map(os.path.abspath, sys.argv[1:3])
GOLDENS = os.path.join(SOURCE, "tests", "goldens")
GOOD = """checkpoint: flux_schnell.safetensors
encoders: {clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}
vae: vae_flux.safetensors
tokenizers: {clip: picture_merges.txt, t5xxl: picture_spiece.model}
model_paths: [GOLDENS]
gpu_ids: [cpu]
sampler: {steps: 2, cfg: 1.0}
images: [{prompt: "a yellow sun", width: 64, height: 64, seed: 3}]
""".replace("GOLDENS", GOLDENS)
JOB = f"""checkpoint: flux_schnell.safetensors
encoders: {{clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}}
vae: vae_flux.safetensors
tokenizers: {{clip: picture_merges.txt, t5xxl: picture_spiece.model}}
model_paths: [{GOLDENS}]
gpu_ids: [cpu]
sampler: {{steps: 1, cfg: 1.0}}
images:
  - {{prompt: "a yellow sun: g\u00fcn, \u72d0", width: 32, height: 32, seed: 3, count: 2}}
  - {{prompt: "a boat", width: 32, height: 16, seed: 9, batch: 2}}
"""
NAMES = ["job-0000-3.png", "job-0001-4.png", "job-0002-9.png", "job-0003-9.png"]


def run(*words, folder=None, text=None, **more):
    return subprocess.run([BINARY, *words], cwd=folder, input=text, capture_output=True, text=True, timeout=120, **more)


def write_typed(path, tensors):
    """A safetensors file: tensors' names with type, shape and, where they are not zeros, bytes."""
    size = {"F16": 2, "F32": 4, "U8": 1}
    header, data = {}, b""
    for name, (dtype, shape, *given) in tensors.items():
        values = given[0] if given else bytes(size[dtype] * math.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def write_weights(path, shapes, values=b""):
    """A safetensors file of fp16: tensors' names and their shapes. Zeros, or these values again and again."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        if values:
            f.write((values * (end // len(values) + 1))[:end])
        f.truncate(8 + len(text) + end)


def write_t5(path, layers, inner, width=96):
    """A T5 encoder for the small Flux models and their tokenizer, `inner` wide in its feed-forward layers."""
    shapes = {"shared.weight": [256, width], "encoder.final_layer_norm.weight": [width],
              "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": [32, 2]}
    for i in range(layers):
        attention, mlp = (f"encoder.block.{i}.layer.{part}." for part in (0, 1))
        shapes |= {f"{attention}SelfAttention.{name}.weight": [width, width] for name in "qkvo"}
        shapes |= {f"{mlp}DenseReluDense.{name}.weight": [inner, width] for name in ("wi_0", "wi_1")}
        shapes |= {mlp + "DenseReluDense.wo.weight": [width, inner]}
        shapes |= {part + "layer_norm.weight": [width] for part in (attention, mlp)}
    drawn = random.Random(1)
    write_weights(path, shapes, struct.pack("<4099e", *(drawn.uniform(-0.1, 0.1) for _ in range(4099))))


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.write("job.yaml", GOOD)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def refused(self, words, message, **more):
        result = run(*words, folder=self.folder, **more)
        self.assertEqual(result.stderr, "error: " + message + "\n")
        self.assertEqual(result.stdout, "")
        self.assertEqual(result.returncode, 2)

    def refused_job(self, text, message):
        self.write("bad.yaml", text)
        for command in ("validate", "plan", "run"):
            self.refused([command, "bad.yaml"], message)


class RunCase(unittest.TestCase):
    """Renders small pictures in a folder of its own."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        with open(self.path("job.yaml"), "w", encoding="utf-8") as f:
            f.write(JOB)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def run_job(self, *words, code=0, **more):
        result = subprocess.run([BINARY, "run", *words], cwd=self.folder, capture_output=True, text=True, timeout=300, **more)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def pictures(self, folder="out"):
        return sorted(n for n in os.listdir(self.path(folder)) if n.endswith(".png"))

    def bytes_of(self, *names):
        with open(self.path(*names), "rb") as f:
            return f.read()

    def report(self, *names):
        with open(self.path(*(names or ("out", "report.json"))), encoding="utf-8") as f:
            return json.load(f)

    def statuses(self, report):
        return [i["status"] for i in report["images"]]

    def manifest(self, folder="out"):
        with open(self.path(folder, "manifest.jsonl"), encoding="utf-8") as f:
            return [json.loads(line) for line in f]
