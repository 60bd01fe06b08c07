#include "cli/picture_coder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <optional>

#include "cli/failure.h"
#include "core/error.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "vae/slabs.h"
#include "vae/tiled.h"
#include "vae/tiny_codec.h"

namespace mgpu {

PictureCoder::PictureCoder(Engine& engine, std::function<void(const std::string&)> note)
    : engine_(engine), note_(std::move(note)) {}

template <class Coder>
std::vector<Coder> PictureCoder::load(Phase phase) const {
  std::vector<std::optional<Coder>> loaded(engine_.coders().size());
  JointWork together;
  engine_.at_coders(phase, together,
                    [&](std::size_t i) { loaded[i].emplace(engine_.models().vae.vae(), engine_.vae_weights(i)); });
  std::vector<Coder> out;
  for (std::optional<Coder>& coder : loaded) out.push_back(std::move(*coder));
  return out;
}

void PictureCoder::load_decoders() {
  const ModelSet& models = engine_.models();
  if (!models.vae.is_tiny_vae()) {
    if (decoders_.empty()) decoders_ = load<Decoder>(Phase::Decode);
  } else if (!tiny_decoding_) {
    tiny_decoding_ = tiny_decoding(models.vae.tiny_vae(), engine_.vae_weights(0), models.training().latent);
  }
}

void PictureCoder::load_encoders() {
  const ModelSet& models = engine_.models();
  if (!models.vae.is_tiny_vae()) {
    if (encoders_.empty()) encoders_ = load<Encoder>(Phase::Encode);
  } else if (!tiny_encoding_) {
    tiny_encoding_ = tiny_encoding(models.vae.tiny_vae(), engine_.vae_weights(0), models.training().latent);
  }
}

void PictureCoder::drop_encoders() {
  encoders_.clear();
  tiny_encoding_ = nullptr;
  engine_.release_cached();
}

Team PictureCoder::team(Phase phase) const {
  return {engine_.coder_speeds(), [this, phase](JointWork& together, std::size_t, const auto& work) {
            engine_.at_coders(phase, together, work);
          }};
}

LatentDistribution PictureCoder::encode(const at::Tensor& image) const {
  if (tiny_encoding_) return tiny_encoding_(image);
  const CodingNeed& way = engine_.plan().image_encoding;
  if (way.way == CodingWay::Slabs) return encode_in_slabs(encoders_, team(Phase::Encode), image, way.slabs);
  return encode_in_bands(encoders_, team(Phase::Encode), image);
}

at::Tensor PictureCoder::run_decoders(const CodingNeed& way, const at::Tensor& z) const {
  if (tiny_decoding_) return tiny_decoding_(z);
  const Team all = team(Phase::Decode);
  if (way.way == CodingWay::Tiled) return decode_in_tiles(decoders_, all, z, way.tiling);
  if (way.way == CodingWay::Slabs) return decode_in_slabs(decoders_, all, z, way.slabs);
  return decode_in_bands(decoders_, all, z);
}

void PictureCoder::rehearse(const Rehearsal& rehearsal) const {
  constexpr std::int64_t kMost = 1024;  // pixels a side: larger pictures have the same kernels, nearly
  const DeviceId device = engine_.coders().front();
  if (!device.is_cuda()) return;
  const AutoencoderFacts vae = engine_.models().vae.autoencoder();
  const auto side = [&](std::int64_t pixels) { return std::min(pixels, kMost) / vae.factor; };
  try {
    decode_by(engine_.plan().coding, at::zeros({1, vae.latent_channels, side(rehearsal.height), side(rehearsal.width)},
                                               at::TensorOptions(torch_device(device))));
  } catch (const c10::OutOfMemoryError&) {  // who decodes a picture finds a way, or says so
  } catch (const Error&) {                  // likewise
  }
}

at::Tensor PictureCoder::decode_by(const CodingNeed& way, const at::Tensor& latent) const {
  const auto decoding = [&](const at::Tensor& z) { return run_decoders(way, z); };
  const at::Tensor image = mgpu::decode(latent, engine_.models().training().latent, decoding)[0];
  const HostDeviceScope nobody;  // a finished picture is the program's, not the device's
  return hand_over(image, at::kCPU);
}

at::Tensor PictureCoder::decode(const at::Tensor& latent) const {
  std::vector<CodingNeed> ways{engine_.plan().coding};
  if (note_ && !tiny_decoding_)
    ways.insert(ways.end(), engine_.plan().thriftier.begin(), engine_.plan().thriftier.end());
  for (std::size_t i = 0; i + 1 < ways.size(); ++i) {
    std::string why;
    try {
      return decode_by(ways[i], latent);
    } catch (...) {
      const Failure failure = failure_of(std::current_exception(), engine_.coders().front());
      if (!failure.out_of_memory) throw;
      why = failure.out_of_memory->to_string();
    }
    note_(fmt::format("{} ran out of memory decoding a picture, which is decoded {} instead", why,
                      ways[i + 1].way == CodingWay::Slabs ? "slab by slab" : "in tiles"));
    engine_.release_cached();
  }
  return decode_by(ways.back(), latent);
}

}  // namespace mgpu
