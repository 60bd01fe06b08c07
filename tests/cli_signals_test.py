#!/usr/bin/env python3
"""What ends a run from outside: signals, closed pipes and terminals, and a kill. What is finished is kept and reported.

cli_signals_test.py BINARY SOURCE_FOLDER
"""
import json
import os
import resource
import signal
import subprocess
import sys
import time
import unittest

from cli_case import BINARY, JOB, NAMES, RunCase

LONG = ["--set", "sampler.steps=10000"]


class Signals(RunCase):
    def start(self, *words, **more):
        return subprocess.Popen([BINARY, "run", *words], cwd=self.folder, stderr=subprocess.PIPE, text=True, **more)

    def interrupt(self, number, *words, then=(), **more):
        """Sends a signal to a run that would sample for long, once it samples; then others, each after a pause in seconds."""
        process = self.start("--verbose", *words, *LONG, **more)
        for line in process.stderr:
            if line.endswith(": sample\n"):
                break
        process.send_signal(number)
        for pause, other in then:
            time.sleep(pause)
            if process.poll() is None:
                process.send_signal(other)
        process.communicate(timeout=300)
        return process

    def assert_dropped(self):
        self.assertEqual([n for n in os.listdir(self.path("out")) if ".png" in n], [])
        self.assertEqual(self.report()["status"], "interrupted")

    def test_a_signal_drops_what_is_in_flight(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            for devices in ("[cpu]", "[cpu:0,cpu:1]"):
                process = self.interrupt(number, "job.yaml", "--set", f"gpu_ids={devices}", "--overwrite")
                self.assertEqual(process.returncode, code, devices)
                self.assert_dropped()

    def test_a_signal_that_is_sent_twice_at_once_is_one_request(self):
        # timeout(1) sends SIGTERM to the program and to its group; a shell repeats the SIGHUP of its terminal.
        for number, code, pause in ((signal.SIGTERM, 143, 0), (signal.SIGHUP, 129, 0), (signal.SIGHUP, 129, 0.15)):
            process = self.interrupt(number, "job.yaml", then=[(pause, number)])
            self.assertEqual(process.returncode, code)
            self.assert_dropped()

    def test_a_hangup_that_is_ignored_stays_ignored(self):
        process = self.interrupt(signal.SIGHUP, "job.yaml", then=[(0.3, signal.SIGINT)],
                                 preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.assertEqual(process.returncode, 130)  # nohup's; what ended it is the other signal
        self.assert_dropped()

    def test_a_signal_before_anything_is_rendered_ends_the_program(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            process = self.start("-", stdin=subprocess.PIPE)  # waits for its job
            while "SigCgt" not in (text := self.status(process)) or not int(text.split("SigCgt:")[1].split()[0], 16) & 1 << 14:
                time.sleep(0.01)
            process.send_signal(number)
            process.communicate(timeout=300)
            self.assertEqual(process.returncode, code)

    def status(self, process):
        with open(f"/proc/{process.pid}/status", encoding="utf-8") as f:
            return f.read()

    def test_a_job_that_a_signal_kept_from_starting_was_interrupted_too(self):
        self.write("later.yaml", JOB.replace("seed: ", "seed: 1"))
        process = self.interrupt(signal.SIGINT, "job.yaml", "later.yaml")
        self.assertEqual(process.returncode, 130)
        for name in ("report.json", "report-later.json"):
            report = self.report("out", name)
            self.assertEqual((report["status"], set(self.statuses(report))), ("interrupted", {"skipped"}))

    def test_a_reader_of_the_progress_that_goes_away_ends_nothing(self):
        read, write = os.pipe()
        os.close(read)
        process = subprocess.run([BINARY, "run", "job.yaml"], cwd=self.folder, stderr=write, stdout=write, timeout=300)
        os.close(write)
        self.assertEqual(process.returncode, 0)
        self.assertEqual((self.pictures(), self.report()["status"]), (NAMES, "ok"))

    def test_data_that_nobody_can_read_are_an_error(self):
        lost = "error: standard output: cannot be written: "
        read, pipe = os.pipe()
        os.close(read)
        full = os.open("/dev/full", os.O_WRONLY)
        for out, why in ((pipe, "Broken pipe"), (full, "No space left on device")):
            for words in (["run", "job.yaml", "--only", "0", "--json"], ["validate", "job.yaml"], ["schema"], ["--help"]):
                result = subprocess.run([BINARY, *words], cwd=self.folder, stdout=out, stderr=subprocess.PIPE, text=True, timeout=300)
                self.assertEqual(result.returncode, 1, words)
                self.assertTrue(result.stderr.endswith(lost + why + "\n"), result.stderr)
        self.assertEqual((self.pictures(), self.report()["status"]), (NAMES[:1], "ok"))
        os.close(pipe), os.close(full)

    def test_closed_standard_streams_are_not_taken_for_files(self):
        for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"):
            words = f"exec {BINARY} run job.yaml --only 0 --overwrite --json {closed}"
            code = subprocess.run(["bash", "-c", words], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=300).returncode
            self.assertEqual(code, 1 if "1>" in closed else 0, closed)
            self.assertTrue(self.bytes_of("out", NAMES[0]).startswith(b"\x89PNG"))
            self.assertEqual((self.report()["status"], self.manifest()[-1]["file"]), ("ok", NAMES[0]))

    def test_a_limit_on_file_sizes_fails_the_pictures_and_leaves_no_half_file(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

        self.write("n.yaml", JOB + 'output: {name: "{index}.png", report: ""}\n')
        result = self.run_job("n.yaml", "--only", "0", code=1, preexec_fn=limit)
        self.assertIn("out/0.png: failed: ", result.stderr)
        self.assertIn("File too large", result.stderr)
        self.assertEqual(os.listdir(self.path("out")), [])

    def test_a_limit_on_cpu_time_drops_the_pictures_in_flight(self):
        self.write("long.yaml", JOB.replace("count: 2", "count: 400"))
        result = self.run_job("long.yaml", "--only", "0-399", code=152,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (3, resource.RLIM_INFINITY)))
        self.assertIn("interrupted", result.stderr)
        report = self.report()
        self.assertEqual((report["status"], self.statuses(report).count("ok")), ("interrupted", len(self.pictures())))

    def test_a_limit_on_open_files_is_named(self):
        for files in (4, 5):
            result = subprocess.run(["bash", "-c", f"ulimit -n {files}; exec {BINARY} run job.yaml"], cwd=self.folder,
                                    capture_output=True, text=True, timeout=300)
            self.assertEqual(result.returncode, 2)
            self.assertIn(": Too many open files\n", result.stderr)

    @unittest.skipIf(os.geteuid() != 0, "needs root, to run as a user whose threads are limited")
    def test_a_limit_on_threads_hangs_nothing(self):
        os.chmod(self.folder, 0o777)
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        for threads in (1, 3):
            def limit(most=threads):
                os.setgroups([]), os.setgid(64000), os.setuid(64000)
                resource.setrlimit(resource.RLIMIT_NPROC, (most, most))

            result = subprocess.run([BINARY, "run", "job.yaml"], cwd=self.folder, capture_output=True, text=True, timeout=100,
                                    env=environment, preexec_fn=limit)
            self.assertIn(result.returncode, (0, 1), result.stderr)
            if result.returncode:
                self.assertIn("the system starts no more threads for this process\n  raise ulimit -u", result.stderr)

    def test_what_a_killed_run_left_is_mended(self):
        self.run_job("job.yaml")
        lines = self.bytes_of("out", "manifest.jsonl").splitlines(keepends=True)
        # Killed between the second picture and its line, within the third's line, and while the last was written.
        with open(self.path("out", "manifest.jsonl"), "wb") as f:
            f.write(lines[0] + lines[0] + lines[2][:40])
        os.remove(self.path("out", NAMES[3]))
        for name in (f"{NAMES[3]}.4194000-3.tmp", f"{NAMES[3]}.tmp", "mine.tmp", "mine.1-2.tmp"):
            self.write(os.path.join("out", name), "half")
        self.run_job("job.yaml", "--resume")
        self.assertEqual(sorted(os.listdir(self.path("out"))), sorted([*NAMES, "manifest.jsonl", "report.json", "mine.tmp",
                                                                        "mine.1-2.tmp"]))
        mended = {line["file"]: line for line in self.manifest()}
        self.assertEqual((len(self.manifest()), sorted(mended)), (4, NAMES))
        for line in lines:
            told = json.loads(line)
            for key in ("job", "index", "seed", "status", "sha256"):
                self.assertEqual(mended[told["file"]][key], told[key], key)
        before = self.bytes_of("out", "manifest.jsonl")
        self.run_job("job.yaml", "--resume")
        self.assertEqual(self.bytes_of("out", "manifest.jsonl"), before)

    def test_a_line_that_was_torn_is_not_continued(self):
        os.mkdir(self.path("out"))
        for rest in ('{"file": "x.png"}', '{"file": "x.pn', "\0\0\0"):
            self.write(os.path.join("out", "manifest.jsonl"), '{"file": "w.png"}\n' + rest)
            self.run_job("job.yaml", "--only", "0", "--overwrite")
            whole = ["x.png"] if rest.endswith("}") else []
            self.assertEqual([line["file"] for line in self.manifest()], ["w.png", *whole, NAMES[0]])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
