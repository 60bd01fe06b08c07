#include "cli/job/checks/model_checks.h"

#include <fmt/format.h>

#include <algorithm>

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

}  // namespace mgpu
