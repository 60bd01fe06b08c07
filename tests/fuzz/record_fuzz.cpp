#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "cli/job.h"
#include "cli/names.h"
#include "cli/picture_job.h"
#include "core/error.h"

// Any bytes as the mgpu_job record of a picture: either a job comes out that writes where a job that says nothing of it
// writes and names files without folders, or an Error that says what is wrong.

namespace mgpu {

std::vector<std::string_view> sampler_names() {
  return {"euler", "dpmpp_2m"};
}
std::vector<std::string_view> schedule_names() {
  return {"simple", "karras"};
}
SamplerName parse_sampler_name(std::string_view name) {
  return name == "euler" ? SamplerName{"euler", "", false} : SamplerName{};
}
std::string_view canonical_sampler(std::string_view name) {
  return parse_sampler_name(name).sampler;
}
std::string_view canonical_schedule(std::string_view name) {
  return name == "simple" ? "simple" : "";
}

}  // namespace mgpu

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void check_name(const mgpu::FileReference& file) {
  check(file.text.find('/') == std::string::npos && file.text != "..");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string record(reinterpret_cast<const char*>(data), size);
  try {
    const mgpu::Job job = mgpu::read_job(mgpu::record_to_yaml(record, "p.png"), "p.png", "");
    check(job.output.directory.text == "out" && !job.output.name.given && !job.output.report.given);
    check(job.files.model_paths.empty() && job.loras.empty() && job.images.size() == 1);
    const mgpu::ModelFiles& files = job.files;
    for (const auto* file : {&files.checkpoint, &files.clip_l, &files.clip_g, &files.t5xxl, &files.vae,
                             &files.clip_tokenizer, &files.t5xxl_tokenizer})
      check_name(*file);
    for (const mgpu::FileReference* file : mgpu::picture_files(job.images.front())) check_name(*file);
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
