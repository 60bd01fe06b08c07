#!/usr/bin/env python3
"""Renders small pictures with the binary: what is written, kept, rendered again, refused, and what a terminal shows.

cli_run_test.py BINARY SOURCE_FOLDER
"""
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
import unittest

from cli_case import BINARY, GOLDENS, JOB, NAMES, RunCase, write_t5, write_weights


class Run(RunCase):
    def test_several_devices_give_the_same_bytes(self):
        self.run_job("job.yaml", "--set", "sampler.steps=2", "--set", "sampler.cfg=2.0")
        alone = [self.bytes_of("out", name) for name in NAMES]
        self.run_job("job.yaml", "--set", "sampler.steps=2", "--set", "sampler.cfg=2.0", "--set", "gpu_ids=[cpu:0,cpu:1]",
                     "--set", "mode=shard", "--overwrite")
        self.assertEqual([self.bytes_of("out", name) for name in NAMES], alone)
        report = self.report()
        with open(self.path("out", "manifest.jsonl"), encoding="utf-8") as f:
            self.assertEqual([json.loads(line)["file"] for line in f], NAMES * 2)  # in order, whichever was finished first
        self.assertEqual(report["mode"], "shard")
        self.assertEqual([d["id"] for d in report["devices"]], ["cpu:0", "cpu:1"])
        held = [[a for a in d["assignments"] if a["component"] == "unet"] for d in report["devices"]]
        self.assertTrue(all(held))
        for device, blocks in zip(report["devices"], held):
            self.assertEqual(device["blocks_executed_per_pass"], sum(a["blocks"] for a in blocks))
            self.assertEqual(device["passes"], 4 * 2 * 2)  # pictures, steps, conditionings
            self.assertEqual(device["warnings"], [])
            self.assertGreater(device["busy_seconds"], 0)
        first, second = (device["received_bytes"] for device in report["devices"])
        self.assertEqual((list(first), list(second)), (["cpu:1"], ["cpu:0"]))  # predictions come back, states go on
        self.assertGreater(second["cpu:0"], first["cpu:1"])

    def test_a_device_without_blocks_is_flagged_and_left_alone(self):
        result = self.run_job("job.yaml", "--only", "0", "--set", "gpu_ids=[cpu:0,cpu:1]", "--set", "mode=single",
                              "--set", "speed={cpu:0: 0.5, cpu:1: 1.0}")
        report = self.report()
        self.assertEqual(report["mode_reason"], "the job asks for one device; cpu:0 idle")
        idle, used = report["devices"]
        self.assertEqual((idle["id"], idle["assignments"], idle["warnings"]), ("cpu:0", [], ["no block assigned"]))
        self.assertEqual({v for k, v in idle.items() if k in ("before_bytes", "after_load_bytes", "passes", "busy_seconds")}, {0})
        self.assertEqual(idle["peak_bytes"], {"encode": 0, "sample": 0, "decode": 0})
        self.assertEqual((idle["received_bytes"], used["received_bytes"]), ({}, {}))
        self.assertEqual((used["id"], used["passes"], used["warnings"]), ("cpu:1", 1, []))
        self.assertGreater(used["peak_bytes"]["sample"], 0)
        rows = result.stderr.splitlines()
        at = next(i for i, row in enumerate(rows) if row.startswith("cpu:0 "))
        self.assertEqual(rows[at].split()[:4], ["cpu:0", "-", "-", "-"])
        self.assertEqual(rows[at + 1], " " * 9 + "no block assigned")

    def test_encoders_over_several_devices_give_the_same_bytes(self):
        prompts = ["--set", "images.0.prompt=a (yellow:1.3) sun", "--set", "images.1.prompt=" + "a boat on dark water, " * 30]
        self.run_job("job.yaml", *prompts)
        alone = [self.bytes_of("out", name) for name in NAMES]
        for clip in ('{expert: "cpu:0,50%;cpu:1,50%"}', '"cpu:1,50%;cpu:0,50%"'):
            self.run_job("job.yaml", *prompts, "--set", "gpu_ids=[cpu:0,cpu:1]", "--set", "allocation={clip: " + clip + "}", "--overwrite")
            self.assertEqual([self.bytes_of("out", name) for name in NAMES], alone, clip)
            report = self.report()
            for device in report["devices"]:
                layers = {a["component"]: a["blocks"] for a in device["assignments"] if a["kind"] == "layer"}
                self.assertEqual(layers, {"clip_l": 1, "t5xxl": 1})
                self.assertGreater(device["busy_seconds"], 0)
                self.assertEqual(device["warnings"], [])

    def test_an_encoder_that_no_device_holds_is_cut_or_streamed(self):
        write_t5(self.path("t5.safetensors"), layers=12, inner=8192)
        t5 = ["--set", "encoders.t5xxl=t5.safetensors", "--only", "0"]
        self.run_job("job.yaml", *t5)
        alone = self.bytes_of("out", NAMES[0])
        plan = subprocess.run([BINARY, "plan", "job.yaml", "--json", *t5[:2], "--set", "gpu_ids=[cpu:0]"], cwd=self.folder,
                              capture_output=True, text=True, check=True)
        peaks = json.loads(plan.stdout)["devices"][0]["predicted_peak_bytes"]
        self.assertGreater(peaks["encode"], max(peaks["sample"], peaks["decode"]) + 2**24)
        limit = ["--set", f"vram_limit={(peaks['encode'] - 2**22) >> 10}kb", "--overwrite"]
        self.run_job("job.yaml", *t5, *limit, "--set", "gpu_ids=[cpu]", code=3)
        for devices, streams in (("[cpu:0,cpu:1]", False), ("[cpu:0]", True)):
            self.run_job("job.yaml", *t5, *limit, "--set", "gpu_ids=" + devices)
            self.assertEqual(self.bytes_of("out", NAMES[0]), alone)
            held = [[a for a in d["assignments"] if a["component"] == "t5xxl"] for d in self.report()["devices"] if d["assignments"]]
            self.assertTrue(all(held))
            self.assertEqual(sum(a["blocks"] for own in held for a in own), 12)
            self.assertEqual(any(a["streamed"] for own in held for a in own), streams)

    def test_pictures_report_and_manifest(self):
        result = self.run_job("job.yaml")
        self.assertEqual(result.stdout, "")
        self.assertNotIn("\x1b", result.stderr)
        self.assertNotIn("\r", result.stderr)
        for name in NAMES:
            self.assertEqual(sum(name in line for line in result.stderr.splitlines() if ": ok, " in line), 1, result.stderr)
        self.assertEqual(self.pictures(), NAMES)
        report = self.report()
        self.assertEqual((report["version"], report["status"], self.statuses(report)), (1, "ok", ["ok"] * 4))
        with open(self.path("out", "manifest.jsonl"), encoding="utf-8") as f:
            self.assertEqual([json.loads(line)["file"] for line in f], NAMES)

    def test_existing_pictures_are_kept_unless_overwritten(self):
        self.run_job("job.yaml", "--only", "0")
        with open(self.path("out", NAMES[0]), "wb") as f:
            f.write(b"mine")
        self.run_job("job.yaml")
        self.assertEqual(self.bytes_of("out", NAMES[0]), b"mine")
        self.assertEqual(self.statuses(self.report()), ["kept", "ok", "ok", "ok"])
        self.run_job("job.yaml", "--overwrite", "--quiet")
        self.assertTrue(self.bytes_of("out", NAMES[0]).startswith(b"\x89PNG"))

    def test_resume_renders_what_was_made_otherwise(self):
        self.run_job("job.yaml", "--only", "0-1")
        before = os.stat(self.path("out", NAMES[1])).st_mtime_ns
        shutil.copy(self.path("out", NAMES[1]), self.path("out", NAMES[0]))
        self.run_job("job.yaml", "--only", "0-1", "--resume")
        self.assertEqual(self.statuses(self.report()), ["ok", "kept"])
        self.assertEqual(os.stat(self.path("out", NAMES[1])).st_mtime_ns, before)

    def test_parts_make_what_the_whole_makes(self):
        self.run_job("job.yaml", "--set", "output.directory=whole")
        for i in range(3):
            self.run_job("job.yaml", "--part", f"{i}/3")
        self.assertEqual(self.pictures(), NAMES)
        for name in NAMES:
            self.assertEqual(self.bytes_of("out", name), self.bytes_of("whole", name), name)
        self.assertEqual(len(self.report("out", "report-1-of-3.json")["images"]), 1)

    def test_a_picture_gives_its_job_and_itself_back(self):
        self.run_job("job.yaml")
        for name in (NAMES[0], NAMES[3]):
            shutil.copy(self.path("out", name), self.path("p.png"))
            self.run_job("p.png", "--set", f"model_paths=[{GOLDENS}]", "--set", "gpu_ids=[cpu]", "--set", "output.directory=again",
                         "--set", "output.name=same.png" if name == NAMES[0] else "output.name=same-{index}.png")
        self.assertEqual(self.bytes_of("again", "same.png"), self.bytes_of("out", NAMES[0]))
        self.assertEqual(self.bytes_of("again", "same-1.png"), self.bytes_of("out", NAMES[3]))
        yaml = subprocess.run([BINARY, "inspect", self.path("out", NAMES[0])], capture_output=True, text=True, check=True).stdout
        self.assertIn('checkpoint: "flux_schnell.safetensors"\n', yaml)
        with open(self.path("again.yaml"), "w", encoding="utf-8") as f:
            f.write(yaml)
        self.run_job("again.yaml", "--set", f"model_paths=[{GOLDENS}]", "--set", "gpu_ids=[cpu]", "--set", "output.directory=yaml",
                     "--set", "output.name=same.png")
        self.assertEqual(self.bytes_of("yaml", "same.png"), self.bytes_of("out", NAMES[0]))

    def test_a_picture_that_started_from_pictures_gives_itself_back(self):
        for name in ("edit_init.png", "edit_mask.png", "edit_left.png"):
            shutil.copy(os.path.join(GOLDENS, name), self.path(name))
        text = JOB[:JOB.index("images:")] + ("images: [{prompt: a boat, init_image: edit_init.png, mask: edit_mask.png,\n"
                                             "  sampler: {denoise: 0.6}, conditions: [{prompt: a sun, mask: edit_left.png, end: 0.5}]}]\n"
                                             'output: {name: "{width}x{height}.png"}\n')
        with open(self.path("edit.yaml"), "w", encoding="utf-8") as f:
            f.write(text)
        self.run_job("edit.yaml")
        self.assertEqual(self.pictures(), ["96x64.png"])
        self.assertIn(b"Denoising strength: 0.6", self.bytes_of("out", "96x64.png"))
        shutil.copy(self.path("out", "96x64.png"), self.path("p.png"))
        settings = ["--set", f"model_paths=[{GOLDENS}]", "--set", "gpu_ids=[cpu]", "--set", "output.directory=again", "--set",
                    "output.name=same.png"]
        self.run_job("p.png", *settings)
        self.assertEqual(self.bytes_of("again", "same.png"), self.bytes_of("out", "96x64.png"))
        shutil.copy(self.path("edit_left.png"), self.path("edit_mask.png"))
        os.remove(self.path("edit_left.png"))
        result = self.run_job("p.png", *settings, "--overwrite", code=2)
        self.assertIn("edit_mask.png", result.stderr)
        # Another mask of the same size is another file too: the whole of a picture is held, not its header alone.
        with open(os.path.join(GOLDENS, "edit_mask.png"), "rb") as f:
            mask = f.read()
        with open(self.path("edit_mask.png"), "wb") as f:
            f.write(mask + b"x")
        result = self.run_job("p.png", *settings, "--overwrite", code=2)
        self.assertIn(f'p.png: was made with another file "edit_mask.png": {len(mask)} bytes, sha256 ', result.stderr)

    def test_a_picture_with_a_textual_inversion_gives_itself_back(self):
        os.mkdir(self.path("embeddings"))
        write_weights(self.path("embeddings", "warm.safetensors"), {"clip_l": [1, 128], "t5xxl": [1, 96]})
        self.run_job("job.yaml", "--only", "0", "--set", "images.0.prompt=a boat, embedding:warm")
        self.run_job("job.yaml", "--only", "0", "--set", "images.0.prompt=a boat", "--set", "output.directory=plain")
        settings = ["--set", f"model_paths=[{GOLDENS}]", "--set", "gpu_ids=[cpu]", "--set", "output.directory=again", "--set",
                    "output.name=same.png"]
        picture = os.path.join("out", NAMES[0])
        self.run_job(picture, *settings)
        self.assertEqual(self.bytes_of("again", "same.png"), self.bytes_of(picture))
        same = subprocess.run([BINARY, "compare", picture, os.path.join("plain", NAMES[0])], cwd=self.folder, capture_output=True)
        self.assertEqual(same.returncode, 1)  # the vectors count
        size = os.path.getsize(self.path("embeddings", "warm.safetensors"))
        write_weights(self.path("embeddings", "warm.safetensors"), {"clip_l": [2, 128], "t5xxl": [2, 96]})
        result = self.run_job(picture, *settings, "--overwrite", code=2)
        self.assertIn(f'was made with another file "warm.safetensors": {size} bytes, sha256 ', result.stderr)

    def test_a_job_on_standard_input(self):
        self.run_job("-", "--only", "0", input=JOB)
        self.assertEqual(self.pictures(), [NAMES[0]])

    def test_an_output_directory_that_cannot_be_written(self):
        with open(self.path("file"), "w") as f:
            f.write("x")
        result = self.run_job("job.yaml", "--set", "output.directory=file/out", code=2)
        self.assertEqual(result.stderr, 'error: --set output.directory=file/out: cannot write to the output directory "file/out": '
                                        "Not a directory\n  name another with output.directory\n")

    def test_a_preview_goes_with_its_picture(self):
        preview = self.path("out", NAMES[0].replace(".png", ".preview.png"))
        process = subprocess.Popen([BINARY, "run", "job.yaml", "--quiet", "--preview", "1", "--set", "sampler.steps=10000"],
                                   cwd=self.folder, stderr=subprocess.PIPE, text=True)
        while not os.path.exists(preview) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual([n for n in os.listdir(self.path("out")) if ".png" in n], [])

    def test_the_peaks_are_near_what_was_predicted(self):
        self.run_job("job.yaml", "--only", "0", "--set", "images.0.width=512", "--set", "images.0.height=512")
        device = self.report()["devices"][0]
        self.assertEqual(device["warnings"], [])
        for phase, predicted in device["predicted_peak_bytes"].items():
            measured = device["peak_bytes"][phase]
            self.assertLessEqual(measured, predicted, phase)
            self.assertLess(predicted, 1.5 * measured, phase)

    def run_on_terminal(self, *words, term="xterm", no_color=None, columns=80):
        """What a terminal is sent while the job's first picture is rendered."""
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        environment["TERM"] = term
        if no_color:
            environment["NO_COLOR"] = no_color
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        process = subprocess.Popen([BINARY, "run", "job.yaml", "--only", "0", "--overwrite", *words], cwd=self.folder, stderr=slave,
                                   stdout=subprocess.DEVNULL, env=environment)
        os.close(slave)
        text = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            text += chunk
        os.close(master)
        self.assertEqual(process.wait(timeout=60), 0)
        return text

    def test_a_terminal_shows_what_several_devices_do(self):
        several = ("--set", "gpu_ids=[cpu:0,cpu:1]", "--set", "mode=shard")
        text = self.run_on_terminal(*several, columns=120)
        device = rb" \| cpu:%d (idle|\d+%%) \d+\.\dG"
        self.assertRegex(text, rb"########\] 1/1" + device % 0 + device % 1 + rb"\r")
        self.assertNotIn(b" | cpu", self.run_on_terminal(*several, columns=60))
        self.assertNotIn(b" | cpu", self.run_on_terminal(columns=120))

    def test_a_terminal_gets_a_bar(self):
        for term, no_color in (("xterm", None), ("dumb", None), ("xterm", "1")):
            text = self.run_on_terminal(term=term, no_color=no_color)
            self.assertEqual(b"\r\x1b[K" in text and b"########] 1/1" in text, term == "xterm", text)
            self.assertEqual(b"\x1b[32m" in text, term == "xterm" and not no_color, text)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
