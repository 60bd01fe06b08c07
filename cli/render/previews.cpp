#include "cli/render/previews.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cli/files/pixels.h"
#include "core/autoencoder_model.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "vae/rough_picture.h"

namespace mgpu {
namespace {

constexpr std::int64_t kLongestSide = 512;

}  // namespace

void Previews::at_step(const Group& group, int step, int steps, const at::Tensor& denoised) {
  const int every = every_;
  if (every == 0 || step % every != 0 || step >= steps) return;
  try {
    fault_point("preview");
    const HostDeviceScope nobody;  // a picture to look at is the program's, not the device's
    const at::Tensor latents = hand_over(denoised, at::kCPU);
    for (Entry* entry : group) {
      if (!entry->preview) entry->preview = std::make_unique<PreviewFile>(entry->picture.path);
      entry->preview->write(draw(latents.narrow(0, entry->picture.in_batch, 1)));
    }
  } catch (...) {
    const Failure failure = failure_of(std::current_exception(), engine_.latent_device());
    if (failure.code == Exit::Device) throw;
    if (every_.exchange(0) != 0) progress_.note(fmt::format("no more previews: {}", failure.why));
  }
}

Rgb8 Previews::draw(const at::Tensor& latent) const {
  const ModelSet& models = engine_.models();
  at::Tensor image;
  if (autoencoder(models.vae).facts(models.vae).tiny) {
    // A part of sampling: what the run keeps lies there too, and a diffusion model's block takes more memory than this.
    engine_.at_autoencoder(Phase::Sample, [&] { image = vae_runner_.decode(latent).unsqueeze(0); });
  } else {
    image = rough_picture(latent, *models.training().latent.rgb);
  }
  return to_rgb8(shrink(image, kLongestSide)[0]);
}

}  // namespace mgpu
