#!/usr/bin/env python3
"""What a run reads and writes besides its pictures: names that are refused, files that change, go or cannot be written.

cli_files_test.py BINARY SOURCE_FOLDER
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import unittest
import zlib

from cli_case import BINARY, GOLDENS, JOB, NAMES, RunCase

LONG = ["--set", "sampler.steps=10000"]
MODEL = "flux_schnell.safetensors"


def png(width, height, rows, *chunks, colour=2):
    """A PNG of 8-bit pixels, with further chunks before them."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))


class Files(RunCase):
    def start(self, *words):
        """A run that says each phase, once it samples its first picture."""
        process = subprocess.Popen([BINARY, "run", "--verbose", *words], cwd=self.folder, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.endswith(": sample\n"):
                break
        return process

    def refused(self, message, *settings, job="job.yaml", run=()):
        """Validate does not take it (or run, with options of its own), and nothing is made. Both check the same way."""
        words = [word for setting in settings for word in ("--set", setting)]
        before = {name: os.stat(self.path(name)).st_size for name in os.listdir(self.folder)}
        result = subprocess.run([BINARY, "run" if run else "validate", job, *run, *words], cwd=self.folder, capture_output=True,
                                text=True, timeout=300)
        self.assertIn(message, result.stderr)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual({name: os.stat(self.path(name)).st_size for name in os.listdir(self.folder)}, before)

    def refused_output(self, message, *run, **output):
        self.write("n.yaml", JOB + f"output: {json.dumps(output)}\n")
        self.refused(message, job="n.yaml", run=run)

    def test_names_that_are_refused(self):
        refused = self.refused_output
        refused('"output.name" holds the control character U+0000', name="x\0{index}.png")
        refused("with a control character", name="x\n{index}.png")
        refused('"output.report" holds the control character U+0007', report="r\a.json")
        refused('"output.directory" holds the control character U+000A', directory="o\n")
        refused('"output.name" gives a file name of 260 bytes, and the file system takes 255', name="n" * 255 + "{index}.png")
        refused("file name of 259 bytes", "--preview", "1", name="n" * 246 + "{index}.png")
        refused('"output.report" gives a file name of 300 bytes', report="r" * 295 + ".json")
        refused("bytes, and the system takes 4095", name="/".join(["d" * 200] * 21) + "/{index}.png")
        for outside in ("/tmp/r.json", "a/../../r.json"):
            refused('"output.report" leads out of the directory', report=outside)
        refused('"output.report" names a directory', report="a/")
        refused('"out/p-0.png" would be the report of n.yaml and picture 0 of n.yaml', name="p-{index}.png", report="p-0.png")
        refused('"out/manifest.jsonl" would be the manifest and the report of n.yaml', report="manifest.jsonl")
        refused('"n.yaml" would be a job file and the report of n.yaml', directory=".", report="n.yaml")
        refused('would be a file, and a folder of other files', name="r.json/{index}.png", report="r.json")
        self.write("n.yaml", JOB + f"output: {json.dumps({'name': 'n' * 250 + '{index}.png'})}\n")  # 255 bytes
        self.run_job("n.yaml", "--only", "0")
        self.assertEqual(len(self.pictures()), 1)

    def test_inputs_are_not_written_over(self):
        shutil.copy(os.path.join(GOLDENS, "edit_init.png"), self.path("in.png"))
        self.write("edit.yaml", JOB[:JOB.index("images:")] + "images: [{prompt: a boat, init_image: in.png}]\n"
                   'output: {directory: ., name: "in.png"}\n')
        self.refused('"in.png" would be a picture that a job reads and picture 0 of edit.yaml', job="edit.yaml")
        for log in ("./job.yaml", "link.yaml", "hard.yaml", "out/" + NAMES[1]):
            if log == "link.yaml":
                os.symlink("job.yaml", self.path(log))
            if log == "hard.yaml":
                os.link(self.path("job.yaml"), self.path(log))
            self.refused(f"error: --log {log}: ", run=["--log", log])
        self.refused(f"error: --log {GOLDENS}/{MODEL}: ", run=["--log", os.path.join(GOLDENS, MODEL)])

    def test_one_folder_under_two_names(self):
        os.makedirs(self.path("out"))
        os.symlink("out", self.path("other"))
        self.write("b.yaml", JOB + 'output: {directory: other, name: "job-{index:04}-{seed}.png"}\n')
        result = subprocess.run([BINARY, "validate", "job.yaml", "b.yaml"], cwd=self.folder, capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 2)
        self.assertIn(f'"other/{NAMES[0]}" would be picture 0 of job.yaml and picture 0 of b.yaml', result.stderr)
        self.write("a.yaml", JOB + 'output: {name: "{job}-{index}.png"}\n')
        self.write("b.yaml", JOB + 'output: {directory: other, name: "{job}-{index}.png"}\n')
        self.run_job("a.yaml", "b.yaml", "--only", "0")
        self.assertEqual(sorted(os.listdir(self.path("out"))), ["a-0.png", "b-0.png", "manifest.jsonl", "report-b.json", "report.json"])

    def test_what_is_no_regular_file_is_refused(self):
        os.makedirs(self.path("out"))
        kinds = {"a FIFO": os.mkfifo, "a directory": os.mkdir, "a device": lambda path: os.symlink("/dev/zero", path)}
        for (kind, make), name in zip(kinds.items(), (NAMES[0], "manifest.jsonl", "report.json")):
            path = self.path("out", name)
            make(path)
            self.refused(f'"out/{name}" is {kind}, not a regular file')
            self.refused(f'"out/{name}" is {kind}, not a regular file', run=["--only", "0"])
            os.rmdir(path) if kind == "a directory" else os.remove(path)
            make(self.path("in"))
            self.refused(f'"in" is {kind}', run=["--log", "in"])
            self.refused(f"in: is {kind}, not a job file", job="in")
            if kind == "a FIFO":
                self.refused(f'in" is {kind}, not a regular file', "images.0.init_image=in")
                self.refused(f'in" is {kind}, not a regular file', "checkpoint=in")
                self.refused(f"is {kind}, not a regular file", "model_paths=[in]")
            os.rmdir(self.path("in")) if kind == "a directory" else os.remove(self.path("in"))
        self.write("file", "x")
        self.refused("Not a directory", "output.directory=file/out")
        self.refused_output('" is a file, and "', name="f/{index}.png", directory=".", report="file/r.json")

    def test_what_merely_bears_a_pictures_name_is_kept_and_said(self):
        os.makedirs(self.path("out"))
        self.write(os.path.join("out", NAMES[0]), "mine")
        note = f"out/{NAMES[0]}: is kept, though it is no PNG: --resume or --overwrite renders that picture"
        result = subprocess.run([BINARY, "validate", "job.yaml"], cwd=self.folder, capture_output=True, text=True, timeout=300)
        self.assertEqual((result.returncode, result.stderr), (0, f"note: {note}\n"))
        self.assertIn(note, self.run_job("job.yaml", "--only", "0").stderr)
        self.run_job("job.yaml", "--only", "0", "--resume")
        self.assertTrue(self.bytes_of("out", NAMES[0]).startswith(b"\x89PNG"))

    def test_a_model_file_that_changes_is_said_and_fails_what_comes_after(self):
        shutil.copy(os.path.join(GOLDENS, MODEL), self.path("first.safetensors"))
        size = os.path.getsize(self.path("first.safetensors"))

        def cut(path):
            os.truncate(path, size // 2)

        def write(path):
            with open(path, "r+b") as f:
                f.seek(size - 4)
                f.write(b"\1\2\3\4")

        was_cut, was_written = (cut, f"was cut from {size} to {size // 2} bytes"), (write, "was written to")
        one, several = ["--set", "gpu_ids=[cpu]"], ["--set", "gpu_ids=[cpu:0,cpu:1]"]
        streamed = ["--set", "gpu_ids=[cpu:0]", "--set", 'allocation={unet: "cpu:0,50%;cpu,50%"}']
        for (change, said), more in ((was_cut, one), (was_cut, streamed), (was_cut, several), (was_written, streamed)):
            shutil.copy(self.path("first.safetensors"), self.path(MODEL))
            process = self.start("job.yaml", "--overwrite", *LONG, *more)
            change(self.path(MODEL))
            error = process.communicate(timeout=300)[1]
            self.assertEqual(process.returncode, 1, error)
            self.assertIn(f"{MODEL}: {said} while the job used it", error)
            report = self.report()
            self.assertEqual((report["status"], self.statuses(report)), ("failed", ["failed"] * 4))
            self.assertIn(said, report["images"][0]["error"])

    def test_a_model_file_that_is_replaced_is_the_old_one(self):
        shutil.copy(os.path.join(GOLDENS, MODEL), self.path(MODEL))
        process = self.start("job.yaml", "--only", "0", "--set", "sampler.steps=50")
        self.write("new", "no model")
        os.replace(self.path("new"), self.path(MODEL))
        self.assertEqual((process.communicate(timeout=300)[1] and process.returncode, self.pictures()), (0, NAMES[:1]))

    def test_pictures_that_go_while_the_job_runs_are_not_ok(self):
        process = subprocess.Popen([BINARY, "run", "job.yaml", "--set", "images.1.sampler.steps=300"], cwd=self.folder,
                                   stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if f"{NAMES[1]}: ok" in line:
                break
        shutil.rmtree(self.path("out"))
        error = process.communicate(timeout=300)[1]
        self.assertEqual(process.returncode, 1, error)
        self.assertEqual(self.pictures(), NAMES[2:])
        self.assertEqual((self.report()["status"], self.statuses(self.report())), ("partial", ["failed", "failed", "ok", "ok"]))
        self.assertIn(f"error: out/{NAMES[0]}: was written, and is no longer there\n", error)

    def test_a_report_that_cannot_be_written_ends_neither_the_run_nor_later_jobs(self):
        self.write("b.yaml", JOB.replace("images:", "output: {directory: b}\nimages:"))
        process = subprocess.Popen([BINARY, "run", "--verbose", "job.yaml", "b.yaml", "--json", "--set", "sampler.steps=30"],
                                   cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.endswith(": sample\n"):
                break
        os.mkdir(self.path("out", "report.json"))
        out, error = process.communicate(timeout=300)
        self.assertEqual(process.returncode, 1, error)
        self.assertIn("error: out/report.json: cannot be written: Is a directory\n", error)
        self.assertEqual([(r["job"], r["status"]) for r in json.loads(out)], [("job.yaml", "ok"), ("b.yaml", "ok")])
        for job in ("job.yaml", "b.yaml"):
            self.assertIn(f"{job}: ok, mode single", error)
        self.assertEqual(self.report("b", "report.json")["status"], "ok")
        os.rmdir(self.path("out", "report.json"))
        one = json.loads(self.run_job("job.yaml", "--json").stdout)
        self.assertEqual(one["job"], "job.yaml")
        plans = subprocess.run([BINARY, "plan", "job.yaml", "b.yaml", "--json"], cwd=self.folder, capture_output=True, timeout=300)
        self.assertEqual([p["job"] for p in json.loads(plans.stdout)], ["job.yaml", "b.yaml"])

    def test_a_log_that_cannot_be_written_is_said(self):
        with open(self.path("log"), "wb") as f:
            f.truncate(1 << 20)
        result = self.run_job("job.yaml", "--only", "0", "--log", "log")  # emptied first
        self.assertIn("step 1 of 1", self.bytes_of("log").decode())
        result = subprocess.run(["bash", "-c", f"ulimit -f 20; exec {BINARY} run job.yaml --only 0 --overwrite --log log "
                                 "--set sampler.steps=700"], cwd=self.folder, capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 1)
        self.assertIn("error: log: cannot be written: File too large\n", result.stderr)
        self.assertEqual(self.report()["status"], "ok")

    def test_a_full_disk_stops_the_job_and_reports_all_the_same(self):
        disk = self.path("disk")
        os.mkdir(disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode != 0:
            self.skipTest("SKIPPED: a small file system cannot be mounted here, which needs root")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        result = self.run_job("job.yaml", "--json", "--set", "images.0.count=100", "--set", "output.directory=disk/out", code=1)
        report = json.loads(result.stdout)
        failed = [i["error"] for i in report["images"] if i["status"] == "failed"]
        self.assertEqual(report["status"], "partial")
        stopped = [e for e in failed if e.startswith("not rendered, since it would fail as the pictures before it: ")]
        self.assertGreater(len(stopped), 50)
        self.assertIn("No space left on device\n  free some space and run again with --resume", stopped[0])
        self.assertIn("job.yaml: partial, mode single", result.stderr)
        self.assertEqual([n for n in os.listdir(os.path.join(disk, "out")) if n.endswith(".tmp")], [])

    def test_processes_that_share_a_folder(self):
        words = [BINARY, "run", "job.yaml", "--set", "images.0.count=12"]
        both = [subprocess.Popen(words, cwd=self.folder, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        for process in both:
            error = process.communicate(timeout=300)[1]
            self.assertEqual(process.returncode, 0, error)
        self.assertEqual(len(self.pictures()), 14)
        self.assertEqual({line["file"] for line in self.manifest()}, set(self.pictures()))
        subprocess.run([*words, "--resume"], cwd=self.folder, check=True, capture_output=True, timeout=300)
        self.assertEqual(sorted(line["file"] for line in self.manifest()), self.pictures())
        self.assertEqual([n for n in os.listdir(self.path("out")) if n.endswith(".tmp")], [])

    def test_a_job_whose_name_is_not_utf8_gives_no_names(self):
        os.rename(self.path("job.yaml"), os.path.join(os.fsencode(self.folder), b"\xff.yaml"))
        result = subprocess.run([BINARY, "validate", b"\xff.yaml"], cwd=self.folder, capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b'"output.name" gives a name that is not UTF-8: "\xff-0000-3.png"\n', result.stderr)

    def test_a_picture_from_a_stranger_names_no_places(self):
        self.run_job("job.yaml", "--only", "0")
        picture = self.bytes_of("out", NAMES[0])
        at = picture.index(b"mgpu_job\0")
        length = struct.unpack(">I", picture[at - 8:at - 4])[0]
        record = json.loads(picture[at + 9:at + length])
        here = ["--set", f"model_paths=[{GOLDENS}]", "--set", "output.directory=again"]

        def with_record(**changes):
            changed = json.loads(json.dumps(record))
            for key, value in changes.items():
                place = changed
                *way, last = [int(k) if k.isdigit() else k for k in key.split("__")]
                for step in way:
                    place = place[step]
                place[last] = value
            with open(self.path("p.png"), "wb") as f:
                f.write(png(1, 1, b"\0\0\0\0", (b"tEXt", b"mgpu_job\0" + json.dumps(changed).encode())))
            return subprocess.run([BINARY, "run", "p.png", *here], cwd=self.folder, capture_output=True, text=True, timeout=300)

        self.assertEqual(with_record().returncode, 0)
        for what, changes in (('"job.output" is a key that no record has', {"job__output": {"directory": "/tmp"}}),
                              ('"job.model_paths" is a key', {"job__model_paths": ["/etc"]}),
                              ('"job.checkpoint" is no file name without a folder', {"job__checkpoint": "../" + MODEL}),
                              ('"job.images.0.init_image" is no file name', {"job__images__0__init_image": "/etc/passwd"}),
                              ('"job.images.0.count" is a key', {"job__images__0__count": 5}),
                              ('"files.0.sha256" is no hash', {"files__0__sha256": "ab\noutput: {directory: /tmp}"}),
                              ('"job.vae" is no file name', {"job__vae": ".."}),
                              ('"files.0.bytes" is no whole number', {"files__0__bytes": -1}),
                              ('"job.exact" is neither true, false nor "portable"', {"job__exact": "maybe"})):
            result = with_record(**changes)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn("p.png: its mgpu_job record is damaged: " + what, result.stderr)
        for changes in ({"version": "1"}, {"version": 2}, {"files": []}, {"files": "x"}):
            result = with_record(**changes)
            self.assertEqual((result.stderr, result.returncode),
                             ("error: p.png: its mgpu_job record is damaged, or of a later version\n", 2))
        for place, batch in ((2, 2), (1 << 40, 1)):  # 1 << 40 is 0 in 32 bits
            result = with_record(in_batch=place, job__images__0__batch=batch)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(f"p.png: is picture {place} of its batch, from 0, and the batch has {batch}", result.stderr)

    def test_folders_are_compared_in_spite_of_one_file(self):
        for folder in ("a", "b"):
            os.mkdir(self.path(folder))
            for name in ("1.png", "2.png"):
                with open(self.path(folder, name), "wb") as f:
                    f.write(png(1, 1, b"\0\0\0\0"))
        self.write("b/1.png", "no picture")
        os.symlink("loop.png", self.path("a", "loop.png"))
        result = subprocess.run([BINARY, "compare", "a", "b"], cwd=self.folder, capture_output=True, text=True, timeout=300)
        self.assertEqual((result.stdout, result.stderr, result.returncode),
                         ("1.png: differ: b/1.png: is no readable PNG: it does not begin as one\n2.png: equal\n", "", 1))

    def test_a_png_whose_sizes_lie_is_refused_at_once(self):
        job = JOB[:JOB.index("images:")] + "images: [{prompt: a boat, init_image: in.png}]\n"
        self.write("edit.yaml", job)
        for width, height, rows, why in ((60000, 60000, b"", "it has 60000x60000 pixels, and 268435456 are the most that are read"),
                                         (16384, 16384, b"\0" * 100, "bytes of data cannot hold 16384x16384 pixels"),
                                         (64, 64, b"\0" * 100_000_000, "its pixels are damaged")):
            with open(self.path("in.png"), "wb") as f:
                f.write(png(width, height, rows))
            self.refused(why, job="edit.yaml")

    def test_an_init_image_is_turned_as_its_exif_says(self):
        shown = {3: (3, "fedcba"), 6: (2, "daebfc")}
        colours = dict(zip("abcdef", ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250))))

        def squares(width, letters, *chunks, scale=32):
            rows = b""
            for i in range(0, len(letters), width):
                row = b"".join(bytes(colours[letter]) * scale for letter in letters[i:i + width])
                rows += (b"\0" + row) * scale
            return png(width * scale, len(letters) // width * scale, rows, *chunks)

        self.write("edit.yaml", JOB[:JOB.index("images:")] + "images: [{prompt: a boat, init_image: in.png, mask: in.png}]\n"
                   "output: {name: in.png}\n")
        for orientation in (3, 6):  # all are in orientation_test.cpp
            width, letters = shown[orientation]
            exif = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
            pictures = []
            for source in (squares(3, "abcdef", (b"eXIf", exif)), squares(width, letters)):
                with open(self.path("in.png"), "wb") as f:
                    f.write(source)
                self.run_job("edit.yaml", "--set", "sampler.denoise=0.5", "--overwrite", "--quiet")
                shutil.move(self.path("out", "in.png"), self.path("now.png"))
                pictures.append(self.path(f"now-{len(pictures)}.png"))
                os.replace(self.path("now.png"), pictures[-1])
            same = subprocess.run([BINARY, "compare", *pictures], capture_output=True, text=True, timeout=300)
            self.assertEqual(same.returncode, 0, same.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
