#include "shard/needs.h"

#include <algorithm>

#include "core/autoencoder_model.h"
#include "core/models/diffusion_model.h"
#include "core/need_parts.h"
#include "core/text/text_encoder.h"

namespace mgpu {
namespace {

/// What encoders give for a prompt, in fp32; put together it is at most as much.
std::uint64_t conditioning_bytes(const ModelSet& models, const LargestPicture& picture) {
  std::uint64_t values = 0;
  for (const Part& part : models.encoders) {
    const TextEncoderModel& encoder = text_encoder(part);
    values += static_cast<std::uint64_t>(encoder.tokens(picture)) * static_cast<std::uint64_t>(encoder.width(part));
  }
  return values * kFp32;
}

/// Adds every prompt's conditioning: beside the encoders, then once more as it is put together; from there on beside
/// the diffusion model's first block.
void add_conditionings(std::vector<ComponentNeed>& needs, const ModelSet& models, const LargestPicture& picture) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(picture.prompts) * conditioning_bytes(models, picture);
  for (ComponentNeed& need : needs) {
    if (need.phase == Phase::Sample) need.latent_device_bytes += bytes;
    if (need.phase != Phase::Encode) continue;
    need.activation += bytes;
    *need.activation_on_cpu = std::max(*need.activation_on_cpu + bytes, 2 * bytes);
  }
}

}  // namespace

std::vector<ComponentNeed> component_needs(const ModelSet& models, const ComputeDtypes& dtypes,
                                           const LargestPicture& picture) {
  std::vector<ComponentNeed> out;
  for (std::size_t i = 0; i < models.encoders.size(); ++i) {
    const Part& part = models.encoders[i];
    const at::ScalarType dtype = dtypes.encoders.value_or(stored_type(part));
    out.push_back(text_encoder(part).need(part, models.text().encoders[i], dtype, picture));
  }
  out.push_back(diffusion_model(models.diffusion).need(models.diffusion, dtypes.unet, picture));
  const double pass = out.back().time();
  const AutoencoderModel& vae = autoencoder(models.vae);
  out.push_back(vae.decoder_need(models.vae, dtypes.vae, picture));
  out.back().time_a_pass =
      vae.decode_time(models.vae, picture) / (pass * static_cast<double>(picture.timesteps * picture.texts));
  add_conditionings(out, models, picture);
  return out;
}

ComponentNeed image_encoder_need(const ModelSet& models, at::ScalarType dtype, const LargestPicture& picture) {
  return autoencoder(models.vae).encoder_need(models.vae, dtype, picture);
}

}  // namespace mgpu
