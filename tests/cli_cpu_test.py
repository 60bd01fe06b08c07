#!/usr/bin/env python3
"""What of the CPU and of the process's surroundings a picture depends on, and what not: instructions, threads, limits, the folder.

cli_cpu_test.py BINARY SOURCE_FOLDER
"""
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
import unittest

from cli_case import BINARY, GOLDENS, GOOD, Case

SMALL = GOOD.replace("width: 64, height: 64", "width: 96, height: 80")  # parts of tensors for every thread
PLAIN = {k: v for k, v in os.environ.items() if not re.match(r"OMP_|GOMP_|MKL_|ATEN_|ONEDNN_|DNNL_", k)}


class Cpu(Case):
    def setUp(self):
        super().setUp()
        self.write("job.yaml", SMALL)

    def call(self, *words, code=0, environment=None, **more):
        more.setdefault("cwd", self.folder)
        result = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=300, env=PLAIN | (environment or {}), **more)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def render(self, *words, **more):
        """The bytes of the job's picture."""
        self.call("run", "--quiet", "--overwrite", *(words or ["job.yaml"]), **more)
        with open(self.path("out/job-0000-3.png"), "rb") as f:
            return f.read()

    def cpu(self, **more):
        return next(d for d in json.loads(self.call("devices", "--json", **more).stdout)["devices"] if d["id"] == "cpu")

    def test_the_number_of_threads_does_not_change_a_picture(self):
        for words in (["job.yaml"], ["--portable", "job.yaml"]):
            alone = self.render(*words, environment={"OMP_NUM_THREADS": "1"})
            for threads in ("2", "3", "7"):
                self.assertTrue(self.render(*words, environment={"OMP_NUM_THREADS": threads}) == alone, (words, threads))
            if "--portable" in words:  # else oneDNN's choice may differ from a dozen threads on
                self.assertTrue(self.render(*words) == alone, words)

    def test_portable_is_a_key_and_an_option_and_wins_over_the_environment(self):
        self.write("portable.yaml", SMALL + "exact: portable\noutput: {name: job-0000-3.png}\n")
        picture = self.render("portable.yaml")
        self.assertIn(b'"exact":"portable"', picture)
        widest = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
        self.assertTrue(self.render("--portable", "job.yaml", environment=widest) == picture)
        self.assertIn("exact: \"portable\"\n", self.call("inspect", "out/job-0000-3.png").stdout)
        shutil.move(self.path("out/job-0000-3.png"), self.path("job.png"))
        self.assertTrue(self.render("job.png", "--set", f"model_paths=[{GOLDENS}]") == picture)
        for command in ("validate", "plan"):
            self.call(command, "--portable", "job.yaml")

    def test_what_cannot_be_portable_or_inexact_is_refused(self):
        self.refused_job(SMALL + "exact: false\n",
                         'bad.yaml:9:8: "exact: false" is not supported yet\n'
                         "   9 | exact: false\n"
                         "     |        ^\n"
                         "  leave it out: no faster mode that it would open is there yet")
        self.refused_job(SMALL.replace("gpu_ids: [cpu]", "gpu_ids: [cpu, 0]") + "exact: portable\n",
                         'bad.yaml:6:10: "exact: portable" is for CPUs, not for "cuda:0"\n'
                         "   6 | gpu_ids: [cpu, 0]\n"
                         "     |          ^\n"
                         "  gpu_ids: [cpu], or exact: true")
        self.write("portable.yaml", SMALL + "exact: portable\n")
        self.refused(["run", "portable.yaml", "job.yaml"],
                     'job.yaml: this job is not "exact: portable", as others of the call are: one call has one arithmetic\n'
                     "  --portable makes all of them so; else render them in two calls")

    def test_a_working_directory_that_is_gone(self):
        def gone():  # in the child, before the program
            folder = tempfile.mkdtemp(dir=self.folder)
            os.chdir(folder)
            os.rmdir(folder)
        picture = self.render()
        job = self.path("job.yaml")
        self.assertTrue(self.render(job, "--set", f"output.directory={self.path('out')}", preexec_fn=gone) == picture)
        result = self.call("run", "job.yaml", code=2, preexec_fn=gone)
        self.assertTrue(result.stderr.startswith("error: job.yaml: "), result.stderr)

    def test_threads_wait_passively_unless_told_otherwise(self):
        def policy(**environment):
            shown = self.call("--version", environment={"OMP_DISPLAY_ENV": "true", **environment})
            return re.findall(r"OMP_WAIT_POLICY = '(\w+)'", shown.stderr)
        self.assertEqual(policy(), ["PASSIVE"])
        self.assertEqual(policy(OMP_WAIT_POLICY="active"), ["ACTIVE"])

    def test_limits_of_the_process_count(self):
        limit = 6 << 30
        cpu = self.cpu(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        self.assertLessEqual(cpu["total_bytes"], limit)
        self.assertLess(cpu["free_bytes"], limit)
        if cpu["total_bytes"] == limit:
            self.assertEqual(cpu["limited_by"], "RLIMIT_AS (ulimit -v)")
        one = min(os.sched_getaffinity(0))
        self.assertEqual(self.cpu(preexec_fn=lambda: os.sched_setaffinity(0, {one}))["threads"], 1)


if __name__ == "__main__":
    unittest.main(argv=[__file__], verbosity=2)
