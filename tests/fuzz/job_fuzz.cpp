#include <cstddef>
#include <cstdint>
#include <string>

#include "cli/job.h"
#include "cli/names.h"
#include "cli/pictures.h"

// Any bytes as a job file: either a job comes out, whose pictures can be listed, or an Error that says what is wrong.

namespace mgpu {

std::vector<std::string_view> sampler_names() {
  return {"euler", "dpmpp_2m"};
}
std::vector<std::string_view> schedule_names() {
  return {"simple", "karras"};
}
SamplerName parse_sampler_name(std::string_view name) {
  if (name == "DPM++ 2M Karras") return {"dpmpp_2m", "karras", false};
  if (name == "euler_gpu") return {"euler", "", true};
  return name == "euler" ? SamplerName{"euler", "", false} : SamplerName{};
}
std::string_view canonical_sampler(std::string_view name) {
  return parse_sampler_name(name).sampler;
}
std::string_view canonical_schedule(std::string_view name) {
  return name == "simple" ? "simple" : "";
}

}  // namespace mgpu

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const mgpu::Job job = mgpu::read_job(text, "fuzz.yaml", "", {{"sampler.steps", "3"}});
    std::int64_t pictures = 0;
    for (const mgpu::ImageJob& image : job.images) pictures += std::int64_t(*image.count) * *image.batch;
    if (pictures <= 1000) mgpu::expand(std::span(&job, 1));
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
