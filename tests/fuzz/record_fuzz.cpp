#include <cstdlib>
#include <string>

#include "cli/job.h"
#include "cli/names.h"
#include "cli/picture_job.h"
#include "cli/png.h"

// Any bytes as a picture's mgpu_job record: either a job comes out, whose own record gives the same job again, or an
// Error that says what is wrong.

namespace mgpu {

std::vector<std::string_view> sampler_names() {
  return {"euler", "dpmpp_2m"};
}
std::vector<std::string_view> schedule_names() {
  return {"simple", "karras"};
}
SamplerName parse_sampler_name(std::string_view name) {
  if (name == "dpmpp_2m") return {"dpmpp_2m", "", false};
  return name == "euler" ? SamplerName{"euler", "", false} : SamplerName{};
}
std::string_view canonical_sampler(std::string_view name) {
  return parse_sampler_name(name).sampler;
}
std::string_view canonical_schedule(std::string_view name) {
  return name == "simple" || name == "karras" ? name : "";
}

/// The bytes stand for a PNG's text chunk: the PNG is another target's.
PngFile decode_png(std::string_view bytes, const std::string&) {
  PngFile out;
  out.text["mgpu_job"] = std::string(bytes);
  return out;
}

}  // namespace mgpu

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string record(reinterpret_cast<const char*>(data), size);
  try {
    const mgpu::Job job = mgpu::read_picture_job(record, "fuzz.png", {{"sampler.steps", "3"}});
    if (job.images.size() != 1 || job.expected_files.empty()) return 0;
    const std::vector<mgpu::Picture> pictures = mgpu::expand(std::span(&job, 1));
    if (pictures.empty()) return 0;
    const std::string own = mgpu::picture_record(job, pictures.front(), {}, job.expected_files);
    const mgpu::Job again = mgpu::read_picture_job(own, "again.png", {});
    if (mgpu::picture_record(again, mgpu::expand(std::span(&again, 1)).front(), {}, again.expected_files) != own)
      std::abort();
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
