#!/usr/bin/env python3
"""What the binary says of Stable Diffusion's files: sets that are not whole, sizes, textual inversions, tokenizers.

cli_models_test.py BINARY SOURCE_FOLDER
"""
import json
import os
import shutil
import subprocess
import sys
import unittest

from cli_case import BINARY, GOLDENS, GOOD, Case, run, write_typed, write_weights

JOB = f"""checkpoint: MODEL.safetensors
vae: vae.safetensors
tokenizers: {{clip: "{GOLDENS}/picture_merges.txt"}}
gpu_ids: [cpu]
images: [{{prompt: "a yellow sun", width: 64, height: 64}}]
"""
TOKENS = 607  # of picture_merges.txt


def pair(name, out, *inner):
    return {name + ".weight": [out, *inner], name + ".bias": [out]}


def unet(model):
    with open(os.path.join(GOLDENS, "unet_models.json"), encoding="utf-8") as f:
        return {"model.diffusion_model." + name: shape for name, shape in json.load(f)[model].items()}


def part(name, prefix=""):
    with open(os.path.join(GOLDENS, "unet_picture_parts.json"), encoding="utf-8") as f:
        return {prefix + tensor: shape for tensor, shape in json.load(f)[name].items()}


def clip(prefix, width, layers=1):
    """A CLIP text encoder in transformers' layout; its kind shows in the number of its layers."""
    model = prefix + "text_model."
    shapes = {model + "embeddings.token_embedding.weight": [TOKENS, width],
              model + "embeddings.position_embedding.weight": [77, width]}
    for i in range(layers):
        layer = f"{model}encoder.layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= pair(layer + "self_attn." + name, width, width)
        shapes |= pair(layer + "layer_norm1", width) | pair(layer + "layer_norm2", width)
        shapes |= pair(layer + "mlp.fc1", 8, width) | pair(layer + "mlp.fc2", width, 8)
    return shapes | pair(model + "final_layer_norm", width)


class Sets(Case):
    def setUp(self):
        super().setUp()
        write_weights(self.path("vae.safetensors"), part("vae"))
        for model in ("sd1", "sdxl"):
            self.write(model + ".yaml", JOB.replace("MODEL", model))
        write_weights(self.path("sd1.safetensors"), unet("sd1") | clip("cond_stage_model.transformer.", 128))
        write_weights(self.path("sdxl.safetensors"), unet("sdxl"))
        write_weights(self.path("l.safetensors"), clip("", 128, 2))
        write_weights(self.path("g.safetensors"), clip("", 64, 32) | {"text_projection.weight": [64, 64]})

    def sdxl(self, *more):
        return ["validate", "sdxl.yaml", "--set", "encoders.clip_l=l.safetensors", "--set", "encoders.clip_g=g.safetensors", *more]

    def accepted(self, words, family):
        result = run(*words, folder=self.folder)
        self.assertEqual((result.stdout, result.stderr), (f"{words[1]}: ok: {family}, 1 picture\n", ""))

    def test_whole_sets(self):
        self.accepted(["validate", "sd1.yaml"], "sd1")
        self.accepted(self.sdxl(), "sdxl")

    def test_a_pickle(self):
        with open(self.path("model.ckpt"), "wb") as f:
            f.write(b"PK\x03\x04" + bytes(60))
        self.refused(["validate", "sd1.yaml", "--set", "checkpoint=model.ckpt"],
                     "model.ckpt: is a pickled checkpoint, which can run code when it is loaded\n  convert it to safetensors first, on a "
                     "machine you can spare: torch.load(file, weights_only=True), then safetensors.torch.save_file")

    def test_a_folder_of_diffusers(self):
        os.makedirs(self.path("d"))
        self.write("d/model_index.json", "{}")
        said = "is a diffusers folder, which is not supported yet"
        hint = "use the model's single-file release"
        self.refused(["validate", "sd1.yaml", "--set", "checkpoint=d"],
                     f'--set checkpoint=d: "d" {said}\n  {hint}')
        self.refused(["inspect", "d"], f"d: {said}\n  {hint}")

    def test_a_quantisation_shows_in_the_header(self):
        text = json.dumps({"format": "mxfp8"}).encode()
        weight = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q."
        shapes = {name: ("F16", shape) for name, shape in (unet("sd1") | clip("cond_stage_model.transformer.", 128)).items()}
        write_typed(self.path("sd1.safetensors"), shapes | {weight + "comfy_quant": ("U8", [len(text)], text)})
        for command in ("validate", "plan", "run"):
            self.refused([command, "sd1.yaml"],
                         f'sd1.safetensors: tensor "{weight}weight" is quantised as "mxfp8", which is not supported yet\n'
                         "  use the model's fp8 or bf16 release")

    def test_a_missing_block(self):
        shapes = {name: shape for name, shape in (unet("sd1") | clip("cond_stage_model.transformer.", 128)).items()
                  if ".output_blocks.4." not in name}
        write_weights(self.path("sd1.safetensors"), shapes)
        block = "model.diffusion_model.output_blocks"
        for command in ("validate", "plan", "run"):
            self.refused([command, "sd1.yaml"],
                         f'sd1.safetensors: tensor "{block}.4.0.in_layers.2.weight" is missing ({block}.5 is there)')

    def test_inspect_lists_what_is_left_over(self):
        shapes = unet("sd1") | {"x.lora_down.weight": [4, 2]}
        write_weights(self.path("sd1.safetensors"), shapes)
        text = run("inspect", "sd1.safetensors", folder=self.folder).stdout
        self.assertEqual(text.splitlines()[-1], 'left over      "x.lora_down.weight" F16 [4, 2]')
        answer = json.loads(run("inspect", "sd1.safetensors", "--json", folder=self.folder).stdout)
        self.assertEqual(answer["left_over"], ["x.lora_down.weight"])
        self.assertEqual(answer["parts"][0]["tensors"], len(unet("sd1")))

    def test_an_autoencoder_of_another_factor(self):
        vae = os.path.join(GOLDENS, "vae_sd.safetensors")
        self.refused(["validate", "sd1.yaml", "--set", "vae=" + vae],
                     f"{vae}: does not belong to sd1.safetensors: it makes 2x2 pixels of a latent value, and that model is made "
                     "for 8x8\n  name the autoencoder that the model was released with")

    def test_layers_that_a_file_leaves_out(self):
        layer = "text_model.encoder.layers.11.layer_norm1.weight"
        write_weights(self.path("l.safetensors"), clip("", 128, 11))
        job = ["validate", "sd1.yaml", "--set", "encoders.clip_l=l.safetensors"]
        self.refused(job, f'l.safetensors: tensor "{layer}" is missing\n  sd1 reads it: name the whole encoder\'s file under '
                          '"encoders.clip_l"')
        self.accepted(job + ["--set", "sampler.clip_skip=2"], "sd1")
        self.accepted(self.sdxl(), "sdxl")
        self.refused(["validate", "sd1.yaml", "--set", "sampler.clip_skip=2"],
                     "sd1.safetensors: the CLIP encoder has 1 layers, and layer -2 was asked for\n"
                     "  a clip_skip that passes the first layer cannot be rendered")

    def test_encoders_that_are_missing(self):
        self.refused(["validate", "sdxl.yaml"],
                     'sdxl.safetensors: does not hold a CLIP-L text encoder\n  name one under "encoders.clip_l"')
        self.refused(["validate", "sdxl.yaml", "--set", "encoders.clip_l=l.safetensors"],
                     'sdxl.safetensors: does not hold a CLIP-G text encoder\n  name one under "encoders.clip_g"')

    def test_an_encoder_of_no_use(self):
        t5 = os.path.join(GOLDENS, "picture_t5xxl.safetensors")
        self.refused(["validate", "sd1.yaml", "--set", "encoders.t5xxl=" + t5],
                     f"{t5}: is of no use to sd1.safetensors, which is a Stable Diffusion 1.x checkpoint\n"
                     '  leave "encoders.t5xxl" out')

    def test_width(self):
        self.refused(self.sdxl("--set", "images.0.width=1020"),
                     '--set images.0.width=1020: "width" 1020 is not a multiple of 8, as sdxl needs\n  the nearest is 1024')
        self.accepted(self.sdxl("--set", "images.0.width=1016"), "sdxl")

    def test_shift(self):
        self.refused(["validate", "sd1.yaml", "--set", "sampler.shift=3"],
                     '--set sampler.shift=3: "shift" is for flow models such as Flux, and sd1 is none\n  leave "shift" out')

    def test_zero_terminal_noise(self):
        marks = {"v_pred": [0], "ztsnr": [0]}
        for more, first in (({}, 14.614643), (marks, 4518.7637)):
            write_weights(self.path("sdxl.safetensors"), unet("sdxl") | more)
            result = run("sigmas", *self.sdxl()[1:], folder=self.folder)
            self.assertAlmostEqual(float(result.stdout.splitlines()[0]), first, 3, result.stderr)

    def test_merges_of_another_model(self):
        self.write("merges.txt", "#version: 0.2\na b\n")
        said = "it knows 607 tokens, and those merges make 515\n  name the merges that the encoder was trained with under " \
               '"tokenizers.clip"'
        self.refused(["validate", "sd1.yaml", "--set", "tokenizers.clip=merges.txt"],
                     "sd1.safetensors: does not belong to merges.txt: " + said)
        self.refused(["validate", "job.yaml", "--set", "tokenizers.clip=merges.txt"],
                     f"{GOLDENS}/picture_clip_l.safetensors: does not belong to merges.txt: " + said)

    def test_tokenizers_are_asked_for_where_the_family_uses_them(self):
        # A program that set-up installed CLIP's data beside, and nothing else.
        os.makedirs(self.path("program/tokenizers"))
        program = shutil.copy(BINARY, self.path("program/mgpu-render"))
        shutil.copy(os.path.join(GOLDENS, "picture_merges.txt"), self.path("program/tokenizers/clip_merges.txt"))

        def validate(job, text):
            self.write(job, text)
            result = subprocess.run([program, "validate", job], cwd=self.folder, capture_output=True, text=True)
            return result.returncode, result.stdout + result.stderr

        sd1 = "".join(line for line in JOB.replace("MODEL", "sd1").splitlines(True) if not line.startswith("tokenizers"))
        flux = "".join(line for line in GOOD.splitlines(True) if not line.startswith("tokenizers"))
        self.assertEqual(validate("sd1.yaml", sd1), (0, "sd1.yaml: ok: sd1, 1 picture\n"))
        self.assertEqual(validate("flux.yaml", flux),
                         (2, "error: flux.yaml: the tokenizer data t5xxl_spiece.model is not installed\n"
                             "  run scripts/setup.sh, or name the file under tokenizers: t5xxl\n"))
        os.remove(self.path("program/tokenizers/clip_merges.txt"))
        self.assertEqual(validate("sd1.yaml", sd1),
                         (2, "error: sd1.yaml: the tokenizer data clip_merges.txt is not installed\n"
                             "  run scripts/setup.sh, or name the file under tokenizers: clip\n"))


class Inversions(Case):
    """`embedding:name` in a prompt."""

    def setUp(self):
        super().setUp()
        write_weights(self.path("vae.safetensors"), part("vae"))
        write_weights(self.path("sd1.safetensors"), unet("sd1") | clip("cond_stage_model.transformer.", 128))
        for folder in ("embeddings", "shared/embeddings", "comfy/ti"):
            os.makedirs(self.path(folder))

    def job(self, prompt, more=""):
        self.write("bad.yaml", JOB.replace("MODEL", "sd1").replace("a yellow sun\"", prompt + '"' + more))

    def accepted(self, *words):
        result = run("validate", "bad.yaml", *words, folder=self.folder)
        self.assertEqual((result.stdout, result.stderr), ("bad.yaml: ok: sd1, 1 picture\n", ""))

    def missing(self, name, line, hint):
        self.refused(["validate", "bad.yaml"],
                     f'bad.yaml:5:10: there is no textual inversion "{name}"\n   5 | {line}\n     |          ^\n  {hint}')

    def test_where_they_lie(self):
        write_weights(self.path("embeddings/mine.safetensors"), {"emb_params": [2, 128]})
        write_weights(self.path("shared/embeddings/ours.safetensors"), {"emb_params": [1, 128]})
        write_weights(self.path("comfy/ti/theirs.safetensors"), {"emb_params": [1, 128]})
        self.write("extra.yaml", "comfyui:\n  base_path: comfy\n  embeddings: ti\n")
        self.job("a sun, embedding:mine", ', negative: "(embedding:ours:1.2)", conditions: [{prompt: "embedding:theirs"}]')
        self.accepted("--set", "model_paths=[shared, extra.yaml]", "--set", "sampler.cfg=5.0")

    def test_one_that_is_missing(self):
        write_weights(self.path("embeddings/easynegative.safetensors"), {"emb_params": [2, 128]})
        hint = 'looked in embeddings and the folders in them; the nearest name is "easynegative"'
        self.job("embedding:easynegativ a sun")
        self.missing("easynegativ", 'images: [{prompt: "embedding:easynegativ a sun", width: 64, height: 64}]', hint)
        self.job("a sun", ", negative: embedding:easynegativ")
        self.missing("easynegativ", 'images: [{prompt: "a sun", negative: embedding:easynegativ, width: 64, height: 64}]', hint)
        self.job("a sun", ", conditions: [{prompt: embedding:easynegativ}]")
        self.missing("easynegativ",
                     'images: [{prompt: "a sun", conditions: [{prompt: embedding:easynegativ}], width: 64, height: 64}]', hint)

    def test_no_folder_at_all(self):
        os.rmdir(self.path("embeddings"))
        self.job("embedding:x")
        self.missing("x", 'images: [{prompt: "embedding:x", width: 64, height: 64}]',
                     'put it into a folder "embeddings" beside the job file or in one of model_paths')

    def test_one_of_another_family(self):
        write_weights(self.path("embeddings/wide.safetensors"), {"emb_params": [2, 1024]})
        self.job("a sun, embedding:wide")
        self.refused(["validate", "bad.yaml"],
                     "embeddings/wide.safetensors: the textual inversion has shape [2, 1024], and clip_l takes vectors of 128\n"
                     "  it was trained for another family of models")

    def test_flux_reads_them_with_both_encoders(self):
        write_weights(self.path("embeddings/both.safetensors"), {"clip_l": [1, 128], "t5xxl": [1, 96]})
        write_weights(self.path("embeddings/one.safetensors"), {"clip_l": [1, 128], "x": [1]})
        self.write("flux.yaml", GOOD.replace("a yellow sun", "embedding:both"))
        self.assertEqual(run("validate", "flux.yaml", folder=self.folder).stdout, "flux.yaml: ok: flux1-schnell, 1 picture\n")
        self.write("flux.yaml", GOOD.replace("a yellow sun", "embedding:one"))
        self.refused(["validate", "flux.yaml"],
                     'embeddings/one.safetensors: no vectors for t5xxl among the tensors "clip_l", "x"\n'
                     "  a textual inversion holds t5xxl, emb_params or one tensor")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
