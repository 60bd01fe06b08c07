#include <cstddef>
#include <cstdint>
#include <string>

#include "cli/job/job.h"
#include "cli/job/picture_list.h"
#include "cli/job/read_job.h"
#include "cli/register_families.h"

// Any bytes as a job file: either a job comes out, whose pictures can be listed, or an Error that says what is wrong.

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** /*arguments*/) {
  mgpu::register_families();
  return 0;
}

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
