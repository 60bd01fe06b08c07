#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "cli/job/job.h"
#include "cli/job/picture_metadata.h"
#include "cli/job/read_job.h"
#include "cli/register_families.h"
#include "core/error.h"

// Any bytes as the mgpu_job record of a picture: either a job comes out that writes where a job that says nothing of it
// writes and names files without folders, or an Error that says what is wrong.

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void check_name(const mgpu::FileReference& file) {
  check(file.text.find('/') == std::string::npos && file.text != "..");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** /*arguments*/) {
  mgpu::register_families();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string record(reinterpret_cast<const char*>(data), size);
  try {
    const mgpu::Job job = mgpu::read_job(mgpu::record_to_yaml(record, "p.png"), "p.png", "");
    check(job.output.directory.text == "out" && !job.output.name.given && !job.output.report.given);
    check(job.files.model_paths.empty() && job.loras.empty() && job.images.size() == 1);
    const mgpu::ModelFiles& files = job.files;
    for (const auto* file : {&files.checkpoint, &files.vae}) check_name(*file);
    for (const auto* named : {&files.encoders, &files.tokenizers})
      for (const auto& [key, file] : *named) check_name(file);
    for (const mgpu::FileReference* file : mgpu::picture_files(job.images.front())) check_name(*file);
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
