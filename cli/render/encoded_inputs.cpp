#include "cli/render/encoded_inputs.h"

#include <ATen/ATen.h>

#include <utility>

#include "cli/job/schedules.h"
#include "cli/render/init_image.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "core/models/diffusion_model.h"
#include "shard/device_error.h"
#include "vae/codec.h"

namespace mgpu {
namespace {

PromptText text_of(const std::string& prompt, const SamplerOptions& options) {
  return {prompt, *options.clip_skip};
}

bool takes_channels(const Part& diffusion) {
  return diffusion_model(diffusion).extra_channels(diffusion) > 0;
}

}  // namespace

EncodedInputs::EncodedInputs(Engine& engine, VaeRunner& vae_runner, const TextualInversions& inversions,
                             std::span<const Picture* const> pictures, const std::function<void()>& between)
    : factor_(engine.models().training().latent.factor), inpaint_model_(takes_channels(engine.models().diffusion)) {
  encode_prompts(engine, inversions, pictures);
  encode_init_images(engine, vae_runner, pictures, between);
}

void EncodedInputs::encode_prompts(Engine& engine, const TextualInversions& inversions,
                                   std::span<const Picture* const> pictures) {
  std::vector<PromptText> prompts;
  for (const Picture* picture : pictures) {
    for (const std::string_view prompt : run_prompts(*picture->image)) {
      const PromptText text = text_of(std::string(prompt), picture->sampler());
      if (conditionings_.try_emplace(text).second) prompts.push_back(text);
    }
  }
  std::vector<Conditioning> encoded = engine.encode(prompts, inversions);
  for (std::size_t i = 0; i < prompts.size(); ++i) conditionings_[prompts[i]] = std::move(encoded[i]);
}

void EncodedInputs::move_to(const DeviceId& device) {
  const HostDeviceScope scope(device);
  on_device(device, [&] {
    for (auto& [text, conditioning] : conditionings_)
      for (at::Tensor* tensor : {&conditioning.context, &conditioning.pooled})
        *tensor = hand_over(*tensor, torch_device(device));
  });
}

EncodedInputs::InitKey EncodedInputs::key_of(const ImageJob& image) {
  return {image.init_image.path, image.mask.path, *image.width, *image.height};
}

void EncodedInputs::encode_init_images(Engine& engine, VaeRunner& vae_runner, std::span<const Picture* const> pictures,
                                       const std::function<void()>& between) {
  const ModelSet& models = engine.models();
  const LatentFormat& format = models.training().latent;
  const auto encoding = [&](const at::Tensor& image) { return vae_runner.encode(image); };
  bool is_loaded = false;
  for (const Picture* picture : pictures) {
    const ImageJob& image = *picture->image;
    if (!image.init_image) continue;
    const auto placed = init_images_.try_emplace(key_of(image));
    if (!placed.second) continue;
    auto& encoded = placed.first->second;
    between();
    engine.at_autoencoder(Phase::Encode, [&] {
      vae_runner.load_encoders();
      is_loaded = true;
      at::Tensor pixels, mask;
      try {
        pixels = read_init_image(image);
        if (inpaint_model_ && image.mask) mask = read_cut_mask(image);
      } catch (const Error&) {  // the file has changed since it was checked
        encoded.fault = std::current_exception();
        return;
      }
      const at::Tensor latent = encode(pixels, format, encoding);
      const at::Tensor channels = mask.defined() ? inpaint_channels(pixels, mask, format, encoding) : at::Tensor();
      const HostDeviceScope scope(engine.latent_device());  // runs begin there, not where the autoencoder is
      encoded.latent = hand_over(latent, at::kCPU);
      encoded.channels = hand_over(channels, at::kCPU);
    });
  }
  if (is_loaded) vae_runner.drop_encoders();
}

const Conditioning& EncodedInputs::conditioning_of(const std::string& prompt, const SamplerOptions& options) const {
  return conditionings_.at(text_of(prompt, options));
}

std::vector<UpcomingConditioning> EncodedInputs::texts_of(std::span<const Picture* const> pictures,
                                                          const Training& training) const {
  RunTimesteps timesteps(training);
  std::vector<UpcomingConditioning> out;
  const ImageJob* last = nullptr;  // pictures of an entry are told the same
  for (const Picture* picture : pictures) {
    if (picture->image == std::exchange(last, picture->image)) continue;
    for (const std::string_view prompt : run_prompts(*picture->image))
      out.push_back({&conditioning_of(std::string(prompt), picture->sampler()), *picture->sampler().guidance,
                     timesteps.of(*picture->image)});
  }
  return out;
}

std::int64_t EncodedInputs::text_tokens(const Picture& picture) const {
  return conditioning_of(picture.image->prompt, picture.sampler()).context.size(1);
}

Run EncodedInputs::run_of(const Picture& picture) const {
  const ImageJob& image = *picture.image;
  const SamplerOptions& options = picture.sampler();
  Run run{.seed = picture.seed,
          .batch = picture.batch,
          .width = picture.width(),
          .height = picture.height(),
          .options = &options,
          .positive = &conditioning_of(image.prompt, options),
          .negative = evaluates_negative(options) ? &conditioning_of(image.negative, options) : nullptr};
  const std::int64_t rows = run.height / factor_, columns = run.width / factor_;
  for (const ConditionOptions& condition : *image.conditions) {
    run.further.push_back(
        {.conditioning = &conditioning_of(condition.prompt, options),
         .mask = condition.mask ? latent_mask(read_mask(condition.mask), rows, columns) : at::Tensor(),
         .strength = condition.strength,
         .start = condition.start,
         .end = condition.end});
  }
  if (inpaint_model_) run.channels = blank_inpaint_channels(rows, columns);
  if (!image.init_image) return run;
  const InitImage& init = init_images_.at(key_of(image));
  if (init.fault) std::rethrow_exception(init.fault);
  run.latent = init.latent;
  if (init.channels.defined()) run.channels = init.channels;
  // ComfyUI's SetLatentNoiseMask scales the whole mask onto the latent, its node for inpainting models the cut one.
  if (image.mask) run.mask = latent_mask(inpaint_model_ ? read_cut_mask(image) : read_mask(image.mask), rows, columns);
  return run;
}

}  // namespace mgpu
