#!/usr/bin/env python3
"""Writes goldens/samplers_*.json: what ComfyUI's schedules and samplers and torchsde's Brownian tree compute.

    python tests/make_sampler_goldens.py --comfyui DIR      (DIR: a checkout of ComfyUI; made with 0.8.0)

Needs torch, numpy, scipy, torchsde and tqdm. Samplers run over an analytic denoiser: in fp64 with latents and noise
from formulas that sampler_test.cpp states again, so that only results are stored; and in fp32, 20 steps, with
ComfyUI's own noise from a seed.
"""
import argparse
import contextlib
import json
import math
import pathlib
import sys
import types
from unittest import mock

import numpy
import scipy.stats
import torch
import torchsde

SHAPE = (2, 2, 2, 2)
SEEDED_SHAPE = (1, 2, 4, 4)
CFG = 1.5
SCHEDULE_STEPS = [1, 2, 4, 10, 20, 28, 50]


def load_comfyui(folder):
    """ComfyUI's sampling modules, with what they import and never use here replaced by mocks."""
    package = types.ModuleType("comfy")
    package.__path__ = [str(folder / "comfy")]
    sys.modules["comfy"] = package

    def pretend(name, module):
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)

    def post_cfg(options, function, disable_cfg1_optimization=False):
        return {**options, "sampler_post_cfg_function": [function]}

    def beta_schedule(schedule, count, linear_start, linear_end, cosine_s):
        return torch.linspace(linear_start**0.5, linear_end**0.5, count, dtype=torch.float64) ** 2

    for name in ["utils", "model_management", "sampler_helpers", "patcher_extension", "hooks", "context_windows",
                 "nested_tensor", "model_base", "controlnet", "ldm", "ldm.modules", "ldm.modules.diffusionmodules"]:
        pretend("comfy." + name, mock.MagicMock())
    pretend("comfy.model_patcher", mock.MagicMock(set_model_options_post_cfg_function=post_cfg))
    pretend("comfy.ldm.modules.diffusionmodules.util", mock.MagicMock(make_beta_schedule=beta_schedule))
    k_diffusion = types.ModuleType("comfy.k_diffusion")
    k_diffusion.__path__ = [str(folder / "comfy" / "k_diffusion")]
    pretend("comfy.k_diffusion", k_diffusion)
    pretend("comfy.k_diffusion.utils", mock.MagicMock(append_dims=lambda x, count: x[(...,) + (None,) * (count - x.ndim)]))
    import comfy.model_sampling
    import comfy.samplers
    return comfy.model_sampling, comfy.samplers


def model_samplings(comfy_models):
    """Our tables' names and ComfyUI's classes for them."""
    def made(base, kind, settings, **parameters):
        sampling = type("Sampling", (base, kind), {})(types.SimpleNamespace(sampling_settings=settings))
        if parameters:
            sampling.set_parameters(**parameters)
        return sampling

    slope = (1.15 - 0.5) / (4096 - 256)
    small = (512 * 768 / 256) * slope + 0.5 - slope * 256
    return {
        "flux_dev": made(comfy_models.ModelSamplingFlux, comfy_models.CONST, {}),
        "flux_dev_512x768": made(comfy_models.ModelSamplingFlux, comfy_models.CONST, {}, shift=small),
        "flux_schnell": made(comfy_models.ModelSamplingDiscreteFlow, comfy_models.CONST,
                             {"multiplier": 1.0, "shift": 1.0}),
        "stable_diffusion": made(comfy_models.ModelSamplingDiscrete, comfy_models.EPS, {}),
        "zero_terminal": made(comfy_models.ModelSamplingDiscrete, comfy_models.V_PREDICTION, {"zsnr": True}),
    }


def sigmas_of(comfy_samplers, sampling, sampler, scheduler, steps, denoise):
    patcher = mock.MagicMock()
    patcher.get_model_object.return_value = sampling
    return comfy_samplers.KSampler(patcher, steps, "cpu", sampler, scheduler, denoise).sigmas


def schedule_goldens(comfy_samplers, samplings):
    cases = []
    for model, sampling in samplings.items():
        for scheduler in comfy_samplers.SCHEDULER_NAMES:
            for steps in SCHEDULE_STEPS:
                for denoise, sampler in [(1.0, "euler"), (0.6, "euler"), (1.0, "uni_pc")]:
                    sigmas = sigmas_of(comfy_samplers, sampling, sampler, scheduler, steps, denoise)
                    if not torch.isfinite(sigmas).all():  # kl_optimal of one step is NaN
                        continue
                    cases.append({"model": model, "scheduler": scheduler, "steps": steps, "denoise": denoise,
                                  "extra_step": sampler == "uni_pc", "sigmas": [float(f"{s:.8g}") for s in sigmas]})
    return cases


def elements(function):
    count = math.prod(SHAPE)
    return torch.tensor([function(j) for j in range(count)], dtype=torch.float64).reshape(SHAPE)


def mixture_mean(x, alpha, sigma, first):
    """The posterior mean of a mixture of three Gaussians over each image: the exact denoiser of that distribution."""
    flat = x.reshape(x.shape[0], -1).double()
    size, spread = flat.shape[1], 0.25
    variance = alpha**2 * spread + sigma**2
    weights, means = [], []
    for k in range(first, first + 3):
        mean = torch.tensor([math.sin(1.3 * k + 0.7 * j) for j in range(size)], dtype=torch.float64)
        away = flat - alpha * mean
        weights.append(-(away**2).sum(1) / (2 * variance))
        means.append(mean + alpha * spread / variance * away)
    weights = torch.stack(weights, 0).softmax(0).unsqueeze(2)
    return (weights * torch.stack(means, 0)).sum(0).reshape(x.shape).to(x.dtype)


def reference_run(comfy_samplers, sampling, name, sigmas, flow, seed=None):
    """One run in fp64 with noise from a formula, or, with a seed, in fp32 with ComfyUI's own noise."""
    sigmas = sigmas.clone() if seed is not None else sigmas.double().clone()
    calls = {"noise": 0, "callback": 0}

    def model(x, sigma, model_options={}, **_):
        level = sigma[0].double()
        alpha = 1 - level if flow else torch.ones_like(level)
        uncond = mixture_mean(x, alpha, level, 2)
        denoised = uncond + CFG * (mixture_mean(x, alpha, level, 0) - uncond)
        for function in model_options.get("sampler_post_cfg_function", []):
            function({"uncond_denoised": uncond, "denoised": denoised})
        return denoised

    def noise(sigma, after):
        n = calls["noise"]
        calls["noise"] += 1
        return elements(lambda j: math.sqrt(2) * math.cos(0.37 * (j + 1) * (n + 1) + 5 * float(sigma) + 3 * float(after)))

    def callback(*_):
        calls["callback"] += 1

    wrapped = mock.MagicMock(side_effect=model)
    wrapped.inner_model.inner_model.model_sampling = sampling
    wrapped.inner_model.model_patcher.get_model_object.return_value = sampling
    top = float(sampling.sigma_max)
    from_top = math.isclose(top, float(sigmas[0]), rel_tol=1e-5) or float(sigmas[0]) > top
    function = comfy_samplers.sampler_object(name).sampler_function
    diffusion = comfy_samplers.k_diffusion_sampling
    with contextlib.ExitStack() as patches, torch.no_grad():
        if seed is None:
            start = elements(lambda j: math.sqrt(2) * math.sin(12.9898 * (j + 1)))
            for target in ["default_noise_sampler", "BrownianTreeNoiseSampler"]:
                patches.enter_context(mock.patch.object(diffusion, target, lambda *a, **k: noise))
            patches.enter_context(mock.patch.object(torch, "float32", torch.float64))
        else:
            start = torch.randn(SEEDED_SHAPE, generator=torch.manual_seed(seed))
        x = sampling.noise_scaling(sigmas[0], start.clone(), torch.zeros_like(start), from_top)
        x = function(wrapped, x, sigmas, extra_args={"seed": seed, "model_options": {}}, callback=callback, disable=True)
    return sampling.inverse_noise_scaling(sigmas[-1], x), calls, wrapped.call_count


def sampler_goldens(comfy_samplers, samplings):
    torch.set_default_dtype(torch.float64)
    cases = []
    for model, scheduler in [("stable_diffusion", "karras"), ("stable_diffusion", "normal"), ("flux_dev", "simple"),
                             ("flux_schnell", "beta")]:
        sampling = samplings[model]
        for name in comfy_samplers.SAMPLER_NAMES:
            if name.endswith("_gpu"):
                continue
            discards = name in comfy_samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
            runs = {"whole": (8, slice(None)), "middle": (9, slice(3, None)), "unfinished": (6, slice(0, -1))}
            if model in ("stable_diffusion", "flux_dev") and not name.startswith("uni_pc"):
                runs["one"] = (1, slice(None))
            for run, (steps, part) in runs.items():
                sigmas = comfy_samplers.calculate_sigmas(sampling, scheduler, steps)[part]
                result, calls, evaluations = reference_run(comfy_samplers, sampling, name, sigmas, model != "stable_diffusion")
                assert torch.isfinite(result).all(), (model, name, run)
                cases.append({"model": model, "sampler": name, "run": run, "sigmas": [float(s) for s in sigmas],
                              "evaluations": evaluations, "callbacks": calls["callback"], "result":
                              [float(f"{v:.9g}") for v in result.flatten()]})
    torch.set_default_dtype(torch.float32)
    return cases


def seeded_goldens(comfy_samplers, samplings):
    cases = []
    for model, scheduler in [("stable_diffusion", "normal"), ("flux_dev", "simple")]:
        for name in comfy_samplers.SAMPLER_NAMES:
            if name.endswith("_gpu"):
                continue
            sigmas = sigmas_of(comfy_samplers, samplings[model], name, scheduler, 20, 1.0)
            result, _, _ = reference_run(comfy_samplers, samplings[model], name, sigmas, model == "flux_dev", seed=1234)
            cases.append({"model": model, "scheduler": scheduler, "sampler": name,
                          "result": [float(f"{v:.8g}") for v in result.flatten()]})
    return cases


def brownian_goldens():
    shape, cases = (1, 2, 4, 4), []
    for entropy in [0, 42, 2**32 + 7, 2**64 - 1]:
        tree = torchsde.BrownianTree(torch.tensor(0.0291675), torch.zeros(shape), torch.tensor(14.614643), entropy=entropy)
        times = torch.tensor([14.614643, 11.7, 6.25, 6.2499, 1.0, 0.0291675])
        for high, low in [*zip(times[:-1], times[1:]), (times[0], times[2])]:
            cases.append({"entropy": entropy, "from": float(low), "to": float(high),
                          "increment": [float(f"{v:.8g}") for v in tree(low, high).flatten()]})
    return {"start": float(torch.tensor(0.0291675)), "end": float(torch.tensor(14.614643)), "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "goldens")
    arguments = parser.parse_args()
    comfy_models, comfy_samplers = load_comfyui(arguments.comfyui)
    samplings = model_samplings(comfy_models)
    quantiles = [[q, float(scipy.stats.beta.ppf(q, 0.6, 0.6))] for q in numpy.linspace(0, 1, 21)]
    spans = {"quantiles": quantiles, "schedules": schedule_goldens(comfy_samplers, samplings)}
    arguments.out.mkdir(exist_ok=True)
    for name, value in [("schedules", spans), ("results", sampler_goldens(comfy_samplers, samplings)),
                        ("seeded", seeded_goldens(comfy_samplers, samplings)), ("brownian", brownian_goldens())]:
        (arguments.out / f"samplers_{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
