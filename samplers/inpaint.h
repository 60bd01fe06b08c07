#pragma once

#include <ATen/core/Tensor.h>

#include "samplers/sampler.h"

namespace mgpu {

/// A denoiser that draws anew only what `mask` [1, 1, h, w] (1: anew, 0: kept, between: blended) leaves free. Outside,
/// the x that goes in is `latent` under `noise` at the level at hand, and what comes out is `latent` itself; a sampler
/// that ends at 0 so ends with it. Samplers keep their own x, and `uncond` stays whole, as in ComfyUI
/// (comfy/samplers.py, KSamplerX0Inpaint). Tensors lie on x's device; latent is [1 or B, C, h, w].
Denoise repaint(Denoise denoise, const SigmaTable& table, at::Tensor mask, at::Tensor latent, at::Tensor noise);

}  // namespace mgpu
