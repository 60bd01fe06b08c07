#include "samplers/inpaint.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "samplers/denoiser.h"

using namespace mgpu;

namespace {

at::Tensor ramp(double first) {
  return at::arange(16, at::kFloat).reshape({1, 4, 2, 2}) / 8 + first;
}

/// One value of each kind: drawn anew, kept, blended, kept.
at::Tensor mask() {
  return at::tensor({1.0F, 0.0F, 0.25F, 0.0F}).reshape({1, 1, 2, 2});
}

}  // namespace

TEST_SUITE_BEGIN("inpaint");

TEST_CASE("outside the mask the init image goes in under its noise and comes out as it is") {
  const at::Tensor x = ramp(-1), latent = ramp(3), noise = ramp(-5), m = mask();
  for (const SigmaTable& table : {flux_dev_sigmas(), stable_diffusion_sigmas()}) {
    const double sigma = table.sigma_max() / 4;
    const at::Tensor noised =
        table.path == NoisePath::Flow ? sigma * noise + (1 - sigma) * latent : latent + sigma * noise;
    at::Tensor seen;
    const Denoise inner = [&](const at::Tensor& input, double level) {
      CHECK(level == sigma);
      seen = input;
      return Denoised{input * 2, input * 3};
    };
    const Denoised out = repaint(inner, table, m, latent, noise)(x, sigma);
    CHECK(at::allclose(seen, x * m + noised * (1 - m)));
    CHECK(at::allclose(out.denoised, seen * 2 * m + latent * (1 - m)));
    CHECK(at::equal(out.denoised.select(3, 1), latent.select(3, 1)));  // where the mask is 0, to the bit
    CHECK(at::equal(out.uncond, seen * 3));
  }
}

TEST_CASE("at the highest level too, the noise under what is kept is sigma times the draw, as in ComfyUI") {
  const SigmaTable table = stable_diffusion_sigmas();
  at::Tensor seen;
  const Denoise inner = [&](const at::Tensor& input, double) {
    seen = input;
    return Denoised{input, input};
  };
  repaint(inner, table, at::zeros({1, 1, 2, 2}), ramp(3), ramp(-5))(ramp(0), table.sigma_max());
  CHECK(at::allclose(seen, ramp(3) + table.sigma_max() * ramp(-5)));
}

TEST_CASE("one latent and one mask serve a batch") {
  const at::Tensor x = at::cat({ramp(0), ramp(1)});
  const Denoise inner = [](const at::Tensor& input, double) { return Denoised{input, input}; };
  const Denoised out = repaint(inner, flux_dev_sigmas(), mask(), ramp(3), x)(x, 0.5);
  CHECK(out.denoised.sizes() == x.sizes());
  CHECK(at::equal(out.denoised[1].select(2, 1), ramp(3)[0].select(2, 1)));
}

TEST_SUITE_END();
