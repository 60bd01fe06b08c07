#include "cli/render/vae_runner.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cli/failure.h"
#include "core/autoencoder_model.h"
#include "core/error.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "vae/codec.h"

namespace mgpu {

VaeRunner::VaeRunner(Engine& engine, std::function<void(const std::string&)> note)
    : engine_(engine), note_(std::move(note)) {}

void VaeRunner::load_decoders() {
  if (decoders_) return;
  const ModelSet& models = engine_.models();
  auto loaded = autoencoder(models.vae).decoders(models.vae, engine_.vae_devices().size(), models.training().latent);
  JointWork together;
  engine_.on_vae_devices(Phase::Decode, together, [&](std::size_t i) { loaded->load(i, engine_.vae_weights(i)); });
  decoders_ = std::move(loaded);
}

void VaeRunner::load_encoders() {
  if (encoders_) return;
  const ModelSet& models = engine_.models();
  auto loaded = autoencoder(models.vae).encoders(models.vae, engine_.vae_devices().size(), models.training().latent);
  JointWork together;
  engine_.on_vae_devices(Phase::Encode, together, [&](std::size_t i) { loaded->load(i, engine_.vae_weights(i)); });
  encoders_ = std::move(loaded);
}

void VaeRunner::drop_encoders() {
  encoders_ = nullptr;
  engine_.release_cached();
}

Team VaeRunner::team(Phase phase) const {
  return {engine_.vae_speeds(), [this, phase](JointWork& together, std::size_t, const auto& work) {
            engine_.on_vae_devices(phase, together, work);
          }};
}

LatentDistribution VaeRunner::encode(const at::Tensor& image) const {
  return encoders_->encode(engine_.plan().image_encoding, team(Phase::Encode), image);
}

at::Tensor VaeRunner::run_decoders(const DecodeNeed& mode, const at::Tensor& z) const {
  return decoders_->decode(mode, team(Phase::Decode), z);
}

void VaeRunner::warm_up(const WarmUpShape& warm_up_shape) const {
  constexpr std::int64_t kMost = 1024;  // pixels a side: larger pictures have the same kernels, nearly
  const DeviceId device = engine_.vae_devices().front();
  if (!device.is_cuda()) return;
  const Part& part = engine_.models().vae;
  const AutoencoderFacts vae = autoencoder(part).facts(part);
  const auto side = [&](std::int64_t pixels) { return std::min(pixels, kMost) / vae.factor; };
  try {
    decode_by(engine_.plan().decode,
              at::zeros({1, vae.latent_channels, side(warm_up_shape.height), side(warm_up_shape.width)},
                        at::TensorOptions(torch_device(device))));
  } catch (const c10::OutOfMemoryError&) {  // who decodes a picture finds a way, or says so
  } catch (const Error&) {                  // likewise
  }
}

at::Tensor VaeRunner::decode_by(const DecodeNeed& mode, const at::Tensor& latent) const {
  const auto decoding = [&](const at::Tensor& z) { return run_decoders(mode, z); };
  const at::Tensor image = mgpu::decode(latent, engine_.models().training().latent, decoding)[0];
  const HostDeviceScope nobody;  // a finished picture is the program's, not the device's
  return hand_over(image, at::kCPU);
}

at::Tensor VaeRunner::decode(const at::Tensor& latent) const {
  std::vector<DecodeNeed> modes{engine_.plan().decode};
  if (note_) modes.insert(modes.end(), engine_.plan().thriftier.begin(), engine_.plan().thriftier.end());
  for (std::size_t i = 0; i + 1 < modes.size(); ++i) {
    std::string why;
    try {
      return decode_by(modes[i], latent);
    } catch (...) {
      const Failure failure = failure_of(std::current_exception(), engine_.vae_devices().front());
      if (!failure.out_of_memory) throw;
      why = failure.out_of_memory->to_string();
    }
    note_(fmt::format("{} ran out of memory decoding a picture, which is decoded {} instead", why,
                      modes[i + 1].mode == DecodeMode::Slabs ? "slab by slab" : "in tiles"));
    engine_.release_cached();
  }
  return decode_by(modes.back(), latent);
}

}  // namespace mgpu
