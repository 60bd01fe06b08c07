"""What the tests of the binary share: running it in a folder of its own, small weight files, exact refusals."""
import json
import math
import os
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


def run(*words, folder=None, text=None, **more):
    return subprocess.run([BINARY, *words], cwd=folder, input=text, capture_output=True, text=True, timeout=120, **more)


def write_weights(path, shapes):
    """A safetensors file of fp16 zeros: tensors' names and their shapes."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)


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
        for command in ("validate", "run"):
            self.refused([command, "bad.yaml"], message)
