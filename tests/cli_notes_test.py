#!/usr/bin/env python3
"""What the binary says of what a job holds and nothing uses: one note per kind, by validate, plan and run.

cli_notes_test.py BINARY SOURCE_FOLDER
"""
import json
import os
import struct
import sys
import unittest
import zlib

from cli_case import GOLDENS, GOOD, Case, run, write_weights
from cli_models_test import clip, part, unet

SD1 = f"""checkpoint: sd1.safetensors
vae: vae.safetensors
tokenizers: {{clip: "{GOLDENS}/picture_merges.txt"}}
gpu_ids: [cpu]
sampler: {{steps: 3, SAMPLER}}
images: [{{prompt: "PROMPT", MORE}}]
"""
SIZE = "width: 64, height: 64"


def write_png(path, width, height, pixel):
    """A PNG of 8 bits a channel; `pixel` gives a tuple of 1 (grey), 3 or 4 values."""
    channels = len(pixel(0, 0))
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y)) for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class Notes(Case):
    def setUp(self):
        super().setUp()
        write_weights(self.path("sd1.safetensors"), unet("sd1") | clip("cond_stage_model.transformer.", 128, 3))
        write_weights(self.path("vae.safetensors"), part("vae"))
        write_png(self.path("init.png"), 96, 64, lambda x, y: (2 * x, 3 * y, x + y))

    def notes(self, prompt="a boat", more=SIZE, sampler="cfg: 5.0", text=SD1, extra=""):
        """What validate notes, without the place, and the place of the first."""
        self.write("notes.yaml", text.replace("PROMPT", prompt).replace("MORE", more).replace("SAMPLER", sampler) + extra)
        result = run("validate", "notes.yaml", folder=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = result.stderr.splitlines()
        for line in lines:
            self.assertTrue(line.startswith("note: notes.yaml:"), line)
        as_json = json.loads(run("validate", "notes.yaml", "--json", folder=self.folder).stdout)
        self.assertEqual(["note: " + note for note in as_json[0]["notes"]], lines)
        return [line.split(": ", 2)[2] for line in lines]

    def test_nothing_to_note(self):
        self.assertEqual(self.notes(), [])
        self.assertEqual(self.notes("a (red:1.2) boat, BREAK on [the] {lake} <b> and a sea", SIZE + ", negative: ugly"), [])
        self.assertEqual(self.notes("a boat", "init_image: init.png", "cfg: 5.0, denoise: 0.5, clip_skip: 2"), [])
        self.assertEqual(self.notes("a boat", SIZE, "name: dpmpp_sde_gpu"), [])
        self.assertEqual(self.notes("a boat", SIZE + ", negative: ugly", "name: euler_cfg_pp, cfg: 1.0"), [])

    def test_sampling(self):
        self.assertEqual(self.notes(more=SIZE + ", negative: ugly", sampler="cfg: 1.0"),
                         ['"negative" is not used at cfg 1: a cfg above 1 uses it'])
        self.assertEqual(self.notes(sampler="cfg: 0"),
                         ['at cfg 0 "prompt" is not used: the picture follows "negative" alone'])
        self.assertEqual(self.notes(sampler="denoise: 0.5"),
                         ['"denoise" 0.5 without an "init_image": only the end of the schedule is run, and it starts from an '
                          "empty latent"])
        self.assertEqual(self.notes(sampler="guidance: 2.5"), ['"guidance" is not used: sd1 has no input for it'])
        self.assertEqual(self.notes(sampler="step_noise: philox"), ['"step_noise" is not used: euler adds no noise'])
        self.assertEqual(self.notes(sampler="clip_skip: 1"), ['"clip_skip" 1 is what sd1 does without it'])
        self.assertEqual(self.notes(more="init_image: init.png"),
                         ['at denoise 1 nothing is kept of "init_image": a denoise below 1 keeps some of it'])
        self.assertEqual(self.notes(more="init_image: init.png", sampler="denoise: 0.001"),
                         ['"steps" 3: the scheduler simple makes 1 at denoise 0.001, each level of noise once'])
        self.assertEqual(self.notes(more=SIZE + ", conditions: [{prompt: y, strength: 0}, {prompt: z, start: 0.5, end: 0.5}]"),
                         ["a condition of strength 0 counts nowhere", "a condition that starts and ends at 0.5 counts at no step"])
        between = SIZE + ", conditions: [{prompt: z, start: 0.4, end: 0.6}]"
        self.assertEqual(self.notes(more=between, sampler="cfg: 5.0, scheduler: normal"), [])
        self.assertEqual(self.notes(more=between.replace("0.4", "0.55"), sampler="cfg: 5.0, scheduler: normal"),
                         ["a condition that starts at 0.55 and ends at 0.6 counts at no step"])

    def test_prompts(self):
        self.assertEqual(self.notes("a boat <lora:add_detail:0.8>"),
                         ['"<lora:add_detail:0.8>" is read as words: LoRAs are not supported yet'])
        self.assertEqual(self.notes("a boat AND a lake"),
                         ['"AND" is read as words: further prompts are listed under "conditions"'])
        self.assertEqual(self.notes("a [boat:ship:0.5]"),
                         ['"[boat:ship:0.5]" is read as words: a prompt is the same at every step; those under "conditions" have a '
                          "start and an end"])
        self.assertEqual(self.notes("a {red|blue} boat"),
                         ['"{red|blue}" is read as words: nothing is drawn from it; list the prompts under "images"'])
        self.assertEqual(self.notes("a __colour__ boat"),
                         ['"__colour__" is read as words: there are no wildcards; list the prompts under "images"'])
        self.assertEqual(self.notes("[embedding:x]"),
                         ['"embedding:x]" is read as words: only a blank, a parenthesis or the beginning of the prompt may '
                          "stand before it"])
        self.assertEqual(self.notes("Embedding:x"),
                         ['"Embedding:x" is read as words: the mark is written in small letters, embedding:NAME'])
        self.assertEqual(self.notes("a boat", SIZE + ", negative: 'ugly <lora:x:1>'"),
                         ['"<lora:x:1>" is read as words: LoRAs are not supported yet'])

    def test_yaml_that_shortens_a_prompt(self):
        text = SD1.replace('[{prompt: "PROMPT", MORE}]', "\n  - prompt: PROMPT\n    width: 64\n    height: 64")
        self.assertEqual(self.notes("a boat #1 on the lake", text=text),
                         ['"prompt" ends before "#1 on the lake", which YAML takes for a comment: put the text in quotes'])
        self.assertEqual(self.notes("a boat # on the lake", text=text), [])
        more = text + "    conditions:\n      - prompt: a lake #1\n        strength: 0.5\n"
        self.assertEqual(self.notes(text=more),
                         ['"prompt" ends before "#1", which YAML takes for a comment: put the text in quotes'])
        for key, value, comment in (("directory", "out", "#1"), ("report", "r", "#1.json")):
            self.assertEqual(self.notes(extra=f"output:\n  {key}: {value} {comment}\n"),
                             [f'"output.{key}" ends before "{comment}", which YAML takes for a comment: put the text in quotes'])
        self.assertEqual(self.notes("&boat on the lake", text=text),
                         ['"prompt" is "on the lake", without its "&boat", which YAML takes for a name: put the text in quotes'])

    def test_masks(self):
        edit = "init_image: init.png, mask: mask.png"
        tail = "; what counts is white in the red channel, not the transparency"
        write_png(self.path("mask.png"), 96, 64, lambda x, y: (0, 0, 0, 255 if x < 48 else 0))
        self.assertEqual(self.notes(more=edit, sampler="denoise: 0.8"),
                         ['"mask" is black all over: all of the init_image stays as it is' + tail])
        self.assertEqual(self.notes(more=SIZE + ", conditions: [{prompt: y, mask: mask.png}]"),
                         ['"mask" is black all over: the condition counts nowhere' + tail])
        write_png(self.path("mask.png"), 96, 64, lambda x, y: (x % 2,))
        self.assertEqual(self.notes(more=edit, sampler="denoise: 0.8"),
                         ['"mask" is nearly black: the brightest red in it is 1, and white is 255'])
        write_png(self.path("mask.png"), 96, 64, lambda x, y: (255,))
        self.assertEqual(self.notes(more=edit, sampler="denoise: 0.8"),
                         ['"mask" is white all over: all of the init_image is drawn anew'])
        write_png(self.path("mask.png"), 96, 64, lambda x, y: (255 if x < 3 else 0, 0, 0))
        self.assertEqual(self.notes(more=edit), [])

    def test_placement(self):
        for extra, note in (
                ("allocation: {t5xxl: cpu}\n", '"allocation.t5xxl" is not used: sd1 has none'),
                ("allocation: {unet: {compute: cpu, donor: cpu}}\n", '"allocation.unet.donor" lends nothing without "virtual_vram_gb"'),
                ("allocation: {unet: {virtual_vram_gb: 1, expert: \"cpu,*\"}}\n",
                 '"allocation.unet.virtual_vram_gb" is not used beside "expert"'),
                ("allocation: {unet: {compute: cpu, virtual_vram_gb: 1, donor: cpu}}\n",
                 '"allocation.unet.donor" lends nothing: cpu is the device that computes'),
                ("vram_limit: {cuda:1: 8GB, cpu: 1GB}\n", '"vram_limit.cuda:1" is not used: the job does not use cuda:1'),
                ("speed: {cuda:1: 0.5}\n", '"speed.cuda:1" is not used: cuda:1 does not compute in this job'),
                ("speed: {cpu: 0.5}\n", '"speed" is not used: cpu alone computes'),
                ("missing_devices: drop\n", None),
                ("vram_limit: {cpu:1: 1GB}\nallocation: {unet: {virtual_vram_gb: 1, donor: cpu:1}}\n", None),
                ("decode: {way: parallel}\n", '"way: parallel" is not used: cpu alone decodes'),
                ("decode: {way: whole, tile: 512}\n", '"decode.tile" is not used with "way: whole"')):
            self.assertEqual(self.notes(extra=extra), [note] if note else [])
        self.assertEqual(self.notes(text=SD1.replace("gpu_ids: [cpu]\n", ""), extra="missing_devices: drop\nspeed: {cuda:0: 1}\n"),
                         ['"missing_devices" is not used without "gpu_ids", which names devices that may be missing'])

    def test_devices_that_do_not_compute_are_refused_without_a_machine(self):
        for allocation, column, what, hint in (
                ("{unet: {compute: cuda:0}}", 20, "cuda:0 does not compute in this job", 'its devices are cpu: "gpu_ids" names them'),
                ('{unet: "cpu,*#cuda:3"}', 27, "cuda:3 does not compute in this job", 'its devices are cpu: "gpu_ids" names them'),
                ("{vae: [cpu, cpu:1]}", 19, 'the vae cannot lie on "cpu:1", which is not in gpu_ids',
                 "add it to gpu_ids, or leave it out here")):
            line = f"allocation: {allocation}"
            self.refused_job(GOOD + line + "\n",
                             f"bad.yaml:9:{column}: {what}\n   9 | {line}\n     | {' ' * (column - 1)}^\n  {hint}")

    def test_many_entries_have_one_note_together(self):
        images = ", ".join(f'{{prompt: "{i} <lora:x:1>", negative: ugly, {SIZE}, seed: {i}}}' for i in range(30))
        self.assertEqual(self.notes(text=SD1.replace('[{prompt: "PROMPT", MORE}]', f"[{images}]"), sampler="cfg: 1.0"),
                         ['"<lora:x:1>" is read as words: LoRAs are not supported yet; 29 more such',
                          '"negative" is not used at cfg 1: a cfg above 1 uses it; 29 more such'])

    def test_plan_and_run_say_them_too(self):
        self.write("job.yaml", GOOD.replace("seed: 3", "seed: 3, negative: ugly").replace("steps: 2", "steps: 1"))
        note = 'note: job.yaml:8:77: "negative" is not used at cfg 1: a cfg above 1 uses it\n'
        planned = run("plan", "job.yaml", "--json", folder=self.folder)
        self.assertEqual((planned.stderr, planned.returncode), (note, 0))
        self.assertEqual(["note: " + n + "\n" for n in json.loads(planned.stdout)["notes"]], [note])
        rendered = run("run", "job.yaml", "--log", "log.txt", folder=self.folder)
        self.assertEqual(rendered.returncode, 0)
        self.assertEqual(rendered.stderr.count(note), 1)
        with open(self.path("log.txt"), encoding="utf-8") as f:
            self.assertEqual(f.read().count(note), 1)
        self.assertNotIn("note:", run("run", "job.yaml", "-q", "--overwrite", folder=self.folder).stderr)
        previews = run("run", "job.yaml", "--preview", "1", folder=self.folder)
        self.assertIn("note: --preview 1 makes none of job.yaml: its pictures take at most 1 step\n", previews.stderr)
        # A picture's job is ours: of it only what --set gives is noted.
        picture = "out/" + next(name for name in os.listdir(self.path("out")) if name.endswith(".png"))
        again = run("validate", picture, "--set", f"model_paths=[{GOLDENS}]", folder=self.folder)
        self.assertEqual((again.stderr, again.returncode), ("", 0))
        again = run("validate", picture, "--set", f"model_paths=[{GOLDENS}]", "--set", "images.0.negative=ugly", folder=self.folder)
        self.assertEqual(again.stderr, 'note: --set images.0.negative=ugly: "negative" is not used at cfg 1: a cfg above 1 uses it\n')


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
