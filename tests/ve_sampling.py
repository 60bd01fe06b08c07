"""Sampling of Stable Diffusion models as ComfyUI does it, for make_unet_picture_goldens.py: noise levels, sampler steps and step noise,
written from the papers and from what ComfyUI computes (comfy/model_sampling.py, samplers.py, k_diffusion/sampling.py). In fp32."""
import math

import numpy as np
import torch
import torchsde

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0)
TABLE = ((1 - ALPHAS) / ALPHAS).sqrt()
SIGMAS, LOG_SIGMAS = TABLE.float(), TABLE.log().float()


def timestep_of(sigma):
    """The nearest entry of the table."""
    return (sigma.log() - LOG_SIGMAS).abs().argmin().item()


def sigma_of(timestep):
    """Between entries, linear in log sigma."""
    timestep = torch.as_tensor(timestep, dtype=torch.float32)
    low, weight = timestep.floor().long(), timestep.frac()
    return ((1 - weight) * LOG_SIGMAS[low] + weight * LOG_SIGMAS[timestep.ceil().long()]).exp()


def schedule(name, steps):
    if name == "normal":
        levels = [sigma_of(t) for t in torch.linspace(999, 0, steps)]
    else:
        assert name == "karras"
        high, low = SIGMAS[-1] ** (1 / 7), SIGMAS[0] ** (1 / 7)
        levels = [(high + ramp * (low - high)) ** 7 for ramp in torch.linspace(0, 1, steps)]
    return torch.stack([*levels, torch.tensor(0.0)])


def sigma_at(share):
    if share <= 0:
        return math.inf
    return sigma_of((1 - share) * 999) if share < 1 else 0.0


# ---- Samplers: x at sigmas[0] -> the latent at 0. `noise` is called as noise(sigma, following). ----

def euler(denoise, x, sigmas, noise):
    for s, after in zip(sigmas, sigmas[1:]):
        x = x + (x - denoise(x, s)) / s * (after - s)
    return x


def euler_ancestral(denoise, x, sigmas, noise):
    for s, after in zip(sigmas, sigmas[1:]):
        up = torch.sqrt(after**2 * (s**2 - after**2) / s**2)
        down = torch.sqrt(after**2 - up**2)
        x = x + (x - denoise(x, s)) / s * (down - s)
        if after > 0:
            x = x + noise(s, after) * up
    return x


def dpmpp_2m(denoise, x, sigmas, noise):
    """Lu et al. 2022 (arXiv:2211.01095), in lambda = -log sigma."""
    previous = h_previous = None
    for s, after in zip(sigmas, sigmas[1:]):
        denoised = denoise(x, s)
        if after == 0:
            return denoised
        h, direction = (s / after).log(), denoised
        if previous is not None:
            direction = denoised + (denoised - previous) * h / (2 * h_previous)
        x = after / s * x + (1 - (-h).exp()) * direction
        previous, h_previous = denoised, h


def dpmpp_2m_sde(denoise, x, sigmas, noise):
    """The same for the SDE (eta 1), the correction at the middle of the step."""
    previous = h_previous = None
    for s, after in zip(sigmas, sigmas[1:]):
        denoised = denoise(x, s)
        if after == 0:
            return denoised
        h = (s / after).log()
        fresh = 1 - (-2 * h).exp()
        x = after / s * (-h).exp() * x + fresh * denoised
        if previous is not None:
            x = x + fresh / 2 * (denoised - previous) * h / h_previous
        x = x + noise(s, after) * after * fresh.sqrt()
        previous, h_previous = denoised, h


SAMPLERS = {f.__name__: f for f in (euler, euler_ancestral, dpmpp_2m, dpmpp_2m_sde)}


# ---- Step noise ----

def philox_normal(seed, draw_index, shape):
    """What a CUDA generator's draw of that index gives: Philox4x32-10 (Salmon et al. 2011), one counter an element and draw, and
    the first of Box and Muller's pair."""
    count, mask = math.prod(shape), np.uint64(0xFFFFFFFF)
    c = [np.full(count, draw_index, np.uint64), np.zeros(count, np.uint64), np.arange(count, dtype=np.uint64), np.zeros(count, np.uint64)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), b & mask, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), a & mask]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    u, v = ((c[i].astype(np.float64) + 0.5) / 2**32 for i in (0, 1))
    return torch.from_numpy((np.sqrt(-2 * np.log(u)) * np.sin(2 * np.pi * v)).astype(np.float32)).reshape(shape)


def step_noise(kind, seed, shape, sigmas):
    """-> noise(sigma, following) of a sampler."""
    if kind == "philox":
        draws = iter(range(len(sigmas)))
        return lambda s, after: philox_normal(seed, next(draws), shape)
    if kind == "brownian":
        tree = torchsde.BrownianTree(sigmas[sigmas > 0].min(), torch.zeros(shape), sigmas.max(), entropy=seed)
        return lambda s, after: -tree(after, s) / (s - after).sqrt()
    generator = torch.Generator().manual_seed(seed + 1)
    return lambda s, after: torch.randn(shape, generator=generator)
