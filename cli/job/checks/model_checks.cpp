#include "cli/job/checks/model_checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/autoencoder_model.h"
#include "core/error.h"
#include "core/text/text_encoder.h"

namespace mgpu {

void check_sizes(const Job& job, int multiple, std::string_view family) {
  for (const ImageJob& image : job.images) {
    for (const auto& [key, size] : {std::pair("width", &image.width), std::pair("height", &image.height)}) {
      if (**size % multiple == 0) continue;
      const int nearest = std::max(multiple, (**size + multiple / 2) / multiple * multiple);
      throw job.error(size->mark,
                      fmt::format("\"{}\" {} is not a multiple of {}, as {} needs", key, **size, multiple, family),
                      fmt::format("the nearest is {}", nearest));
    }
  }
}

void check_shift(const Job& job, Prediction prediction, std::string_view family) {
  if (prediction == Prediction::Velocity) return;
  for (const ImageJob& image : job.images)
    if (const Marked<Shift>& shift = image.sampler.shift; shift->kind != Shift::Kind::Auto)
      throw job.error(shift.mark, fmt::format("\"shift\" is for flow models such as Flux, and {} is none", family),
                      "leave \"shift\" out");
}

void check_schedules(const Job& job) {
  constexpr double kMost = 1e6;
  for (const ImageJob& image : job.images) {
    const SamplerOptions& options = image.sampler;
    const double whole = *options.steps / *options.denoise;
    if (whole <= kMost * (1 + 1e-9)) continue;
    throw job.error(options.denoise.given ? options.denoise.mark : options.steps.mark,
                    fmt::format("{} steps of a \"denoise\" of {} are the end of a schedule of {:.0f} steps",
                                *options.steps, *options.denoise, whole),
                    fmt::format("the longest is {:.0f}: take fewer steps or a larger denoise", kMost));
  }
}

void check_encoder(const Job& job, const Part& vae) {
  if (autoencoder(vae).facts(vae).encoder) return;
  for (const ImageJob& image : job.images)
    if (image.init_image)
      throw job.error(
          image.init_image.mark,
          fmt::format("\"init_image\" needs an encoder, and the autoencoder in {} has none", vae.file->path()),
          "name a whole autoencoder under \"vae\"");
}

void check_ways(const Job& job, const Part& vae) {
  if (!autoencoder(vae).facts(vae).tiny) return;
  const DecodeSetting mode = *job.decode.mode;
  if (mode == DecodeSetting::Parallel || mode == DecodeSetting::Tiled)
    throw job.error(job.decode.mode.mark, "a tiny autoencoder decodes pictures whole, on one device",
                    "leave \"decode\" out");
  if (job.placement.allocation.vae->compute.size() > 1)
    throw job.error(job.placement.allocation.vae.mark, "a tiny autoencoder decodes pictures whole, on one device",
                    "name one device");
}

void check_clip_skip(const Job& job, const ModelSet& set) {
  const bool has_effect = std::ranges::any_of(
      set.text().encoders, [](const EncoderUse& use) { return use.context && use.encoder->has_clip_skip(); });
  for (const ImageJob& image : job.images) {
    if (has_effect) check_clip_layers(set, *image.sampler.clip_skip);
    if (has_effect || *image.sampler.clip_skip == 0) continue;
    throw job.error(image.sampler.clip_skip.mark, fmt::format("clip_skip has no effect on {}", set.diffusion.row->name),
                    "it reads T5, and of CLIP the pooled output alone; leave clip_skip out");
  }
}

void check_tokenizers(const Job& job, const ModelSet& set) {
  for (const EncoderUse& use : set.text().encoders) {
    const TokenizerData* data = use.encoder->names().tokenizer;
    if (!data || !set.tokenizer(data->key).empty()) continue;
    throw job.error({job.file}, fmt::format("the tokenizer data {} is not installed", data->file),
                    fmt::format("run scripts/setup.sh, or name the file under tokenizers: {}", data->key));
  }
}

}  // namespace mgpu
