#include "samplers/inpaint.h"

#include <ATen/ATen.h>

#include "samplers/denoiser.h"

namespace mgpu {

Denoise repaint(Denoise denoise, const SigmaTable& table, at::Tensor mask, at::Tensor latent, at::Tensor noise) {
  const at::Tensor kept = 1 - mask;
  return [=, denoise = std::move(denoise)](const at::Tensor& x, double sigma) {
    Denoised out = denoise(x * mask + at_level(table, sigma, noise, latent) * kept, sigma);
    out.denoised = out.denoised * mask + latent * kept;
    return out;
  };
}

}  // namespace mgpu
