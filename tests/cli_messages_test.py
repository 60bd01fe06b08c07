#!/usr/bin/env python3
"""Runs the binary as a user does: exact output and exit codes for bad input, the schema held against every preset.

cli_messages_test.py BINARY SOURCE_FOLDER
"""
import glob
import json
import os
import re
import subprocess
import sys
import unittest

import jsonschema

from cli_case import GOLDENS, GOOD, SOURCE, Case, run, write_weights


class Usage(Case):
    def test_nothing(self):
        self.refused([], "a subcommand is required\n  mgpu-render --help lists what there is")

    def test_unknown_flag(self):
        self.refused(["run", "job.yaml", "--fast"],
                     "the following argument was not expected: --fast\n  mgpu-render --help lists what there is")

    def test_unknown_command(self):
        self.refused(["valdate", "job.yaml"], 'unknown command "valdate"\n  did you mean "validate"?')

    def test_missing_job(self):
        self.refused(["run", "nope.yaml"], "nope.yaml: no such file")
        self.refused(["nope.yaml"], "nope.yaml: no such file")
        self.refused(["inspect", "nope.png"], "nope.png: no such file")

    def test_empty_words(self):
        for words, what in ((["run", "job.yaml", "--only", ""], "--only"), (["run", "job.yaml", "--part", ""], "--part"),
                            (["plan", "job.yaml", "--devices", ""], "--devices"), (["validate", ""], "JOB")):
            self.refused(words, what + " is empty\n  leave it out, or give it a value")

    def test_the_shell_completes_every_option_of_a_command(self):
        script = os.path.join(SOURCE, "scripts", "completions", "mgpu-render.bash")
        for command in ("run", "plan", "validate", "inspect", "devices", "sigmas", "compare"):
            listed = re.findall(r"^ +(?:-\w,)?(--[a-z]+)", run(command, "--help").stdout, re.M)
            words = f'source "{script}"; COMP_WORDS=(mgpu-render {command} --) COMP_CWORD=2; _mgpu_render; echo "${{COMPREPLY[@]}}"'
            completed = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True).stdout.split()
            self.assertEqual(sorted(completed), sorted({*listed, "--help", "--version"}), command)

    def test_folder(self):
        self.refused(["run", "."], ".: is a directory, not a job file")

    def test_help_and_version(self):
        self.assertIn("Examples:", run("--help").stdout)
        self.assertIn("--overwrite", run("run", "--help").stdout)
        self.assertNotIn("schema", run("--help").stdout)
        self.assertRegex(run("--version").stdout, r"^mgpu-render \d+\.\d+\.\d+\n$")


class Jobs(Case):
    def test_misspelt_key(self):
        self.refused_job("checkpoint: a\nsampler:\n  stpes: 20\nimages: [{prompt: x}]\n",
                         'bad.yaml:3:3: unknown key "stpes" in sampler\n   3 |   stpes: 20\n     |   ^\n  did you mean "steps"?')

    def test_unknown_key(self):
        self.refused_job("checkpoint: a\nimages: [{prompt: x}]\nquality: 9\n",
                         'bad.yaml:3:1: unknown key "quality"\n   3 | quality: 9\n     | ^\n  known are checkpoint, encoders, vae, '
                         "tokenizers, model_paths, loras, dtype, exact, gpu_ids, vram_limit, mode, replicas, split_cfg, speed, "
                         "missing_devices, allocation, decode, sampler, images, output")

    def test_repeated_key(self):
        self.refused_job("checkpoint: a\ncheckpoint: b\nimages: [{prompt: x}]\n",
                         'bad.yaml:2:1: key "checkpoint" is given twice\n   2 | checkpoint: b\n     | ^\n  the first is at bad.yaml:1:1')

    def test_tabs_and_colons(self):
        self.refused_job("checkpoint: a\nsampler:\n\tsteps: 3\nimages: [{prompt: x}]\n",
                         "bad.yaml:3:7: not valid YAML: illegal map value\n   3 | \tsteps: 3\n     | \t     ^\n"
                         "  YAML indents with spaces, not tabs")
        self.refused_job("checkpoint: a\nimages:\n  - prompt: a: b\n",
                         "bad.yaml:3:14: not valid YAML: illegal map value\n   3 |   - prompt: a: b\n"
                         "     |              ^\n  put text that holds a colon in quotes: \"a: b\"")

    def test_a_comfyui_workflow(self):
        self.refused_job('{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}',
                         "bad.yaml: is a ComfyUI workflow, not a job\n  write a job file: presets/demo/demo.yaml is one")

    def test_one_job_twice(self):
        for command in ("validate", "plan", "run"):
            self.refused([command, "job.yaml", "job.yaml"],
                         'job.yaml:8:10: two pictures would be written to "out/job-0000-3.png"\n'
                         '   8 | images: [{prompt: "a yellow sun", width: 64, height: 64, seed: 3}]\n     |          ^\n'
                         "  picture 0 of images.0 at job.yaml:8:10 and picture 0 of images.0 at job.yaml:8:10: give one of the jobs "
                         "another output.directory")

    def test_windows_files(self):
        for name, content in (("crlf.yaml", GOOD.replace("\n", "\r\n")), ("bom.yaml", "\ufeff" + GOOD)):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8", newline="") as f:
                f.write(content)
            self.assertEqual(run("validate", name, folder=self.folder).stdout, f"{name}: ok: flux1-schnell, 1 picture\n")

    def test_wrong_type(self):
        self.refused_job("checkpoint: a\nimages: [{prompt: x, width: wide}]\n",
                         'bad.yaml:2:29: "images.0.width" must be an integer from 16 to 16384, not "wide"\n'
                         "   2 | images: [{prompt: x, width: wide}]\n     |                             ^")

    def test_out_of_range(self):
        self.refused_job("checkpoint: a\nimages: [{prompt: x, batch: 0}]\n",
                         'bad.yaml:2:29: "images.0.batch" must be an integer from 1 to 1024, not "0"\n'
                         "   2 | images: [{prompt: x, batch: 0}]\n     |                             ^")

    def test_missing_weights(self):
        self.refused_job("checkpoint: nope.safetensors\nimages: [{prompt: x}]\n",
                         'bad.yaml:1:13: no file "nope.safetensors"\n   1 | checkpoint: nope.safetensors\n'
                         f"     |             ^\n  looked in {os.path.realpath(self.folder)}")

    def test_not_supported_yet(self):
        self.refused_job("checkpoint: a\nimages: [{prompt: x}]\nmode: tensor\n",
                         'bad.yaml:3:7: "mode: tensor" is not supported yet\n   3 | mode: tensor\n     |       ^\n'
                         "  there are mode: auto, single and shard")

    def test_setting(self):
        self.refused(["run", "job.yaml", "--set", "sampler.steps=many"],
                     '--set sampler.steps=many: "sampler.steps" must be an integer from 1 to 10000, not "many"')
        self.refused(["run", "job.yaml", "--set", "steps"],
                     "--set steps: a setting is path=value\n  as in --set sampler.steps=20")

    def test_preview(self):
        for steps in ("0", "-2", "often", "2.5", "99999999999"):
            self.refused(["run", "job.yaml", "--preview", steps],
                         f"--preview {steps}: a preview is made every so many steps, from 1\n  as in --preview 5")
        self.refused(["plan", "job.yaml", "--preview", "2"],
                     "the following argument was not expected: --preview\n  mgpu-render --help lists what there is")
        self.write("a.yaml", GOOD + "output: {name: a.png}\n")
        self.write("b.yaml", GOOD + "output: {name: a.preview.png}\n")
        self.refused(["run", "a.yaml", "b.yaml", "--preview", "1"],
                     'a.yaml:9:16: the preview of "out/a.png" would take the place of the picture "out/a.preview.png"\n'
                     "   9 | output: {name: a.png}\n     |                ^\n"
                     "  leave --preview out, or give one of them another output.name")

    def test_standard_input(self):
        self.refused(["validate", "-"], 'standard input:1:1: missing key "images"\n   1 | checkpoint: a\n     | ^', text="checkpoint: a\n")

        self.refused(["validate", "-", "-"], "-: standard input holds one job\n  name it once", text=GOOD)

    def test_long_names(self):
        for words in (["validate", "x" * 5000], ["validate", "job.yaml", "--set", "checkpoint=" + "x" * 5000],
                      ["compare", "x" * 5000, "job.yaml"], ["validate", "job.yaml", "--set", "x" * 5000]):
            result = run(*words, folder=self.folder)
            self.assertEqual(result.returncode, 2)
            self.assertLess(len(result.stderr), 2000)

    def test_orders_to_a_terminal(self):
        self.refused(["validate", "job.yaml", "--set", 'mode="\\e]0;x\\a"'],
                     '--set mode="\\e]0;x\\a": "mode" must be auto, single, shard, tensor, sequence, patch, replicate or split-cfg, '
                     'not the text "\\x1b]0;x\\x07"')

    def test_repeated_name(self):
        self.refused(["validate", "job.yaml", "--set", "images.0.count=2", "--set", "output.name=a.png"],
                     f'--set output.name=a.png: two pictures would be written to "out/a.png"\n  picture 0 of images.0 at job.yaml:8:10 '
                     "and picture 1 of images.0 at job.yaml:8:10: put {index} into output.name")


class Models(Case):
    def test_good(self):
        result = run("validate", "job.yaml", folder=self.folder)
        self.assertEqual((result.stdout, result.stderr, result.returncode), ("job.yaml: ok: flux1-schnell, 1 picture\n", "", 0))
        result = run("validate", "job.yaml", "--json", folder=self.folder)
        self.assertEqual(json.loads(result.stdout)[0]["pictures"], 1)

    def test_unknown_family(self):
        write_weights(self.path("odd.safetensors"), {"layer.weight": [1]})
        result = run("validate", "job.yaml", "--set", "checkpoint=odd.safetensors", folder=self.folder)
        self.assertRegex(result.stderr, r"^error: odd\.safetensors: is of no family that mgpu-render knows\n  looked for double_blocks\.")
        self.assertEqual(result.returncode, 2)

    def test_encoders_that_do_not_belong(self):
        self.refused(["validate", "job.yaml", "--set", "encoders.clip_l=vae_flux.safetensors"],
                     f"{GOLDENS}/vae_flux.safetensors: is an autoencoder of 16 latent channels, not a CLIP-L text encoder\n"
                     '  it belongs under "vae"')

    def test_a_tiny_autoencoder_of_another_latent(self):
        self.refused(["validate", "job.yaml", "--set", "vae=tiny_vae_sd.safetensors"],
                     f"{GOLDENS}/tiny_vae_sd.safetensors: does not belong to {GOLDENS}/flux_schnell.safetensors: its latent channels "
                     "are 4, and that model takes 16\n  name the autoencoder that the model was released with")
        tiny = ["validate", "job.yaml", "--set", "vae=tiny_vae_flux.safetensors"]
        for way in ("parallel", "tiled"):
            self.refused([*tiny, "--set", f"decode.way={way}"],
                         f"--set decode.way={way}: a tiny autoencoder decodes pictures whole, on one device\n  leave \"decode\" out")
        self.refused([*tiny, "--set", "gpu_ids=[cpu:0,cpu:1]", "--set", "allocation.vae=[cpu:0,cpu:1]"],
                     "--set allocation.vae=[cpu:0,cpu:1]: a tiny autoencoder decodes pictures whole, on one device\n  name one device")
        result = run(*tiny, folder=self.folder)
        self.assertEqual((result.stdout, result.stderr), ("job.yaml: ok: flux1-schnell, 1 picture\n", ""))

    def test_width(self):
        self.refused(["validate", "job.yaml", "--set", "images.0.width=100"],
                     '--set images.0.width=100: "width" 100 is not a multiple of 16, as flux1-schnell needs\n  the nearest is 96')

    def test_sigmas(self):
        result = run("sigmas", "job.yaml", "--set", "sampler.steps=4", folder=self.folder)
        self.assertEqual(result.stdout, "1\n0.75\n0.5\n0.25\n0\n")

    def test_inspect(self):
        result = run("inspect", os.path.join(GOLDENS, "flux_schnell.safetensors"))
        self.assertIn("a Flux.1 schnell transformer", result.stdout)
        result = run("inspect", os.path.join(GOLDENS, "flux_schnell.safetensors"), "--json")
        self.assertTrue(json.loads(result.stdout)["parts"][0]["supported"])


class Pictures(Case):
    """Init images and masks: what must be there, and of which size."""

    JOB = GOOD.replace(", width: 64, height: 64, seed: 3}", ", init_image: edit_init.png}")

    def entry(self, more):
        self.write("edit.yaml", self.JOB.replace("edit_init.png}", "edit_init.png" + more + "}"))

    def test_the_picture_takes_the_init_images_size(self):
        self.entry(", mask: edit_mask.png")
        self.assertEqual(run("validate", "edit.yaml", folder=self.folder).stdout, "edit.yaml: ok: flux1-schnell, 1 picture\n")

    def test_missing(self):
        self.refused_job(self.JOB.replace("edit_init.png", "nope.png"),
                         'bad.yaml:8:47: no file "nope.png"\n   8 | images: [{prompt: "a yellow sun", init_image: nope.png}]\n'
                         f"     |                                               ^\n  looked in {os.path.realpath(self.folder)}, {GOLDENS}")

    def test_a_mask_alone(self):
        self.refused_job(self.JOB.replace("init_image: edit_init.png", "mask: edit_mask.png"),
                         'bad.yaml:8:41: "mask" without "init_image"\n   8 | images: [{prompt: "a yellow sun", mask: edit_mask.png}]\n'
                         "     |                                         ^\n  a mask says which part of an init_image is drawn anew")

    def test_sizes_that_do_not_agree(self):
        self.entry(", mask: edit_left.png")
        self.refused(["validate", "edit.yaml"],
                     'edit.yaml:8:68: "mask" is 24x16, and its init image 100x70\n'
                     '   8 | images: [{prompt: "a yellow sun", init_image: edit_init.png, mask: edit_left.png}]\n'
                     "     |                                                                    ^\n"
                     '  make "edit_left.png" as large as the init image')
        self.entry("")
        self.refused(["validate", "edit.yaml", "--set", "images.0.width=128"],
                     'edit.yaml:8:47: "init_image" is 100x70, and the picture shall be 128x64\n'
                     '   8 | images: [{prompt: "a yellow sun", init_image: edit_init.png}]\n'
                     "     |                                               ^\n"
                     '  leave out "width" and "height" for a picture of 96x64, or resize "edit_init.png"')
        self.refused(["validate", "edit.yaml", "--set", "images.0.init_image=" + os.path.join(GOLDENS, "edit_left.png"), "--set",
                      "images.0.width=32"],
                     f'--set images.0.init_image={GOLDENS}/edit_left.png: "init_image" is 24x16, and the picture shall be 32x16\n'
                     f'  leave out "width" and "height" for a picture of 16x16, or resize "{GOLDENS}/edit_left.png"')

    def test_no_png(self):
        self.write("a.png", "GIF89a")
        for more in (", mask: a.png", ", conditions: [{prompt: x, mask: a.png}]"):
            self.entry(more)
            self.refused(["validate", "edit.yaml"], "a.png: is not a PNG\n  convert it: only PNGs are read")
        with open(os.path.join(GOLDENS, "edit_init.png"), "rb") as whole, open(os.path.join(self.folder, "a.png"), "wb") as half:
            half.write(whole.read()[:3000])
        self.write("bad.yaml", self.JOB.replace("edit_init.png", "a.png"))
        result = run("validate", "bad.yaml", folder=self.folder)
        self.assertRegex(result.stderr, r"^error: a\.png: is no readable PNG: ")
        self.assertEqual(result.returncode, 2)

    def test_denoise_zero(self):
        self.refused(["validate", "job.yaml", "--set", "sampler.denoise=0"],
                     '--set sampler.denoise=0: "sampler.denoise" must be a number from 0.0001 to 1, not "0"')

    def test_schedules(self):
        more = "{prompt: x, width: 64, height: 64, sampler: {denoise: 0.5}}, {prompt: y, width: 32, height: 32}"
        self.write("two.yaml", GOOD.replace("seed: 3}", "seed: 3}, " + more))
        result = run("sigmas", "two.yaml", folder=self.folder)
        self.assertEqual(result.stdout, "# images.0, images.2\n1\n0.5\n0\n# images.1\n0.5\n0.25\n0\n")
        result = run("sigmas", "two.yaml", "job.yaml", folder=self.folder)
        self.assertTrue(result.stdout.startswith("# two.yaml images.0, two.yaml images.2, job.yaml images.0\n1\n"), result.stdout)


class Other(Case):
    def test_devices(self):
        result = run("devices", "--json", env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
        answer = json.loads(result.stdout)
        self.assertEqual(list(answer), ["driver_version", "runtime_version", "devices", "links", "warnings"])
        self.assertEqual([d["id"] for d in answer["devices"]], ["cpu"])
        self.assertEqual(answer["links"], [])
        self.assertEqual(len(answer["warnings"]), 1)
        self.assertEqual(result.returncode, 0)

    def test_compare(self):
        a, b = (sorted(glob.glob(os.path.join(GOLDENS, "picture_*.png")))[i] for i in (0, 1))
        name = os.path.basename(a)
        same = run("compare", a, a)
        self.assertEqual((same.stdout, same.returncode), (f"{name}: equal\n", 0))
        self.assertEqual(run("compare", a, b).returncode, 1)
        self.assertEqual(run("compare", a, "nope.png").returncode, 2)


class Schema(unittest.TestCase):
    """The committed schema and reference are the ones that the binary prints, and every preset and example keeps to them."""

    def test_committed(self):
        for name, words in (("job.schema.json", ["schema"]), ("job.md", ["schema", "--markdown"])):
            with open(os.path.join(SOURCE, "presets", name), encoding="utf-8") as f:
                self.assertEqual(f.read(), run(*words).stdout, f"presets/{name} is old: mgpu-render {' '.join(words)} > presets/{name}")

    def test_presets(self):
        import yaml
        with open(os.path.join(SOURCE, "presets", "job.schema.json"), encoding="utf-8") as f:
            schema = json.load(f)
        jsonschema.Draft7Validator.check_schema(schema)
        validator = jsonschema.Draft7Validator(schema)
        jobs = [j for pattern in ("presets/**/*.yaml", "tests/goldens/*.yaml")
                for j in glob.glob(os.path.join(SOURCE, pattern), recursive=True)]
        self.assertGreaterEqual(len(jobs), 12)
        for job in jobs:
            with self.subTest(job=os.path.relpath(job, SOURCE)), open(job, encoding="utf-8") as f:
                validator.validate(yaml.safe_load(f))
        for bad in ({"images": [{"prompt": "x"}]}, {"checkpoint": "a", "images": []},
                    {"checkpoint": "a", "images": [{"prompt": "x", "wdith": 3}]},
                    {"checkpoint": "a", "images": [{"prompt": "x"}], "vram_limit": 8},
                    {"checkpoint": "a", "images": [{"prompt": "x"}], "vram_limit": "8"},
                    {"checkpoint": "a", "images": [{"prompt": "x"}], "sampler": {"steps": 0}},
                    {"checkpoint": "a", "images": [{"prompt": "x"}], "sampler": {"name": "eulr"}}):
            self.assertFalse(validator.is_valid(bad), bad)
        for good in ({"sampler": {"name": "DPM++ 2M Karras"}}, {"sampler": {"name": "dpmpp_sde_gpu"}},
                     {"vram_limit": "8GB", "gpu_ids": [0, "cuda:1", "cpu:0"]}, {"dtype": {"unet": "bf16"}}, {"dtype": "fp32"},
                     {"sampler": {"shift": {"base": 0.5}, "clip_skip": "auto"}}, {"split_cfg": True},
                     {"allocation": {"vae": ["cuda:0"], "clip": {"compute": "cpu"}}}):
            validator.validate({"checkpoint": "a", "images": [{"prompt": "x", "seed": "random"}], **good})


class Plan(Case):
    """`plan` on supposed devices, which no machine need have."""

    def test_table(self):
        result = run("plan", "job.yaml", "--devices", "cpu:0=200MB,cpu:1=250MB", "--set", "gpu_ids=[cpu:0, cpu:1]", "--set", "mode=shard",
                     "--set", "sampler.steps=200", folder=self.folder)  # so many that decoding takes no time to speak of
        self.assertEqual((result.stderr, result.returncode), ("", 0))
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], "job.yaml: fits, mode shard: the job asks for it")
        self.assertEqual(lines[1].split(), "device component blocks weights limit | encode sample decode GiB time".split())
        self.assertEqual([line.split()[:3] for line in lines[2:4]], [["cpu:0", "unet", "double"], ["cpu:1", "clip_l", "layer"]])

    def test_json(self):
        result = run("plan", "job.yaml", "--json", "--devices", "cuda:0=8GB,cuda:1=24GB@0.5,cpu=16GB", "--set", "gpu_ids=[0, 1]",
                     folder=self.folder)
        self.assertEqual((result.stderr, result.returncode), ("", 0))
        plan = json.loads(result.stdout)
        self.assertEqual(list(plan), ["version", "job", "fits", "mode", "mode_reason", "devices", "shortfall", "nearest_fit", "notes"])
        self.assertEqual((plan["fits"], plan["mode"], plan["shortfall"], plan["nearest_fit"]), (True, "single", [], ""))
        first, second = plan["devices"]
        self.assertEqual(list(first), ["id", "name", "uuid", "total_bytes", "limit_bytes", "driver_bytes", "speed", "predicted_peak_bytes",
                                       "assignments", "relative_time"])
        self.assertEqual([a["component"] for a in first["assignments"]], ["clip_l", "t5xxl", "unet", "unet", "vae"])
        self.assertEqual((second["limit_bytes"], second["speed"], second["assignments"]), (24 << 30, 0.5, []))

    def test_what_does_not_fit(self):
        words = ("plan", "job.yaml", "--devices", "cpu:0=3MB,cpu:1=3MB", "--set", "gpu_ids=[cpu:0, cpu:1]")
        result = run(*words, folder=self.folder)
        self.assertEqual(result.returncode, 3)
        self.assertRegex(result.stdout, r"^job.yaml: does not fit, mode shard: no device alone holds it; [0-9.]+ MB that serve "
                                        r"only before the steps are read before runs begin\n")
        self.assertRegex(result.stdout, r"\ncpu:0 lacks [0-9.]+ MB to sample\n")
        self.assertRegex(result.stderr, r"^error: job.yaml: cpu:0 needs [0-9.]+ MB to \w+ and may use 3.0 MB: [0-9.]+ MB short; "
                                        r"cpu:1 needs [^\n]*\n  \d+MB more on each device would fit\n$")
        answer = run(*words, "--json", folder=self.folder)
        plan = json.loads(answer.stdout)
        self.assertEqual((answer.returncode, plan["fits"]), (3, False))
        for lack in plan["shortfall"]:
            device = next(d for d in plan["devices"] if d["id"] == lack["device"])
            self.assertEqual(device["predicted_peak_bytes"][lack["phase"]] - device["limit_bytes"], lack["bytes"])
        more = int(result.stderr.splitlines()[1].split("MB")[0])
        words = [w.replace("3MB", f"{3 + more}MB") for w in words]
        self.assertEqual(run(*words, folder=self.folder).returncode, 0)

    def test_an_allocation_at_its_column(self):
        self.write("bad.yaml", GOOD.replace("gpu_ids: [cpu]", 'gpu_ids: [0, 1]\nallocation: {unet: "cuda:0,60%;cuda:7,40%"}'))
        self.refused(["plan", "bad.yaml", "--devices", "cuda:0=8GB,cuda:1=8GB"],
                     'bad.yaml:7:32: cuda:7 is not on this machine\n   7 | allocation: {unet: "cuda:0,60%;cuda:7,40%"}\n'
                     "     |                                ^\n"
                     '  the job computes on cuda:0, cuda:1; any other device that is there may lend memory')
        self.write("bad.yaml", GOOD + 'allocation: {unet: "cuda:0,4tbx"}\n')
        for command in ("validate", "plan", "run"):
            self.refused([command, "bad.yaml"],
                         'bad.yaml:9:29: "allocation.unet": "tbx" is no unit\n   9 | allocation: {unet: "cuda:0,4tbx"}\n'
                         "     |                             ^\n  units are %, b, kb, mb and gb; no unit: a fraction of the device")

    def test_speeds_that_nobody_knows(self):
        words = ("plan", "job.yaml", "--devices", "cuda:0=8GB,cuda:1=8GB,cpu=16GB")
        environment = {**os.environ, "XDG_CACHE_HOME": self.folder}
        note = ("note: job.yaml: speeds are not probed yet: cuda:0 1, cpu 0.02; "
                'run probes them, and "speed" in the job sets them\n')
        unlike = (*words, "--set", "gpu_ids=[0, cpu]")
        result = run(*unlike, folder=self.folder, env=environment)
        self.assertEqual((result.stderr, result.returncode), (note, 0))
        for known in (("--set", "speed={0: 1, cpu: 0.1}"), ("--set", "gpu_ids=[0, 1]")):
            self.assertEqual(run(*unlike, *known, folder=self.folder, env=environment).stderr, "")
        os.mkdir(self.path("mgpu-render"))
        self.write("mgpu-render/speeds.json", "{")
        result = run(*unlike, folder=self.folder, env=environment)
        self.assertEqual((result.stderr, result.returncode),
                         (f"note: {self.path('mgpu-render/speeds.json')}: holds no speeds that can be read: it will be written anew\n"
                          + note, 0))
        self.assertEqual(run("validate", "job.yaml", "--set", "gpu_ids=[0, cpu]", folder=self.folder, env=environment).stderr, "")

    def test_devices_that_cannot_be(self):
        self.refused(["plan", "job.yaml", "--devices", "cuda:0=8TB"],
                     '--devices: "8TB" is no size such as 8GB\n  as in --devices "cuda:0=8GB,cuda:1=24GB@0.5,cpu=16GB"')
        self.refused(["plan", "job.yaml", "--devices", "cpu=8GB", "--set", "gpu_ids=[3]"],
                     '--set gpu_ids=[3]: device "cuda:3" is not on this machine\n  there are: cpu')


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
