#include "tests/prepare_cases.h"

#include <fstream>

#include "cli/job/find_files.h"
#include "cli/job/read_job.h"
#include "tests/testing.h"

namespace mgpu::test {

GpuInfo gpu(int index, int major, int minor) {
  GpuInfo out;
  out.id = DeviceId::cuda(index);
  out.name = "GPU " + std::to_string(index);
  out.major = major;
  out.minor = minor;
  out.total_bytes = out.free_bytes = std::uint64_t{24} << 30;
  return out;
}

DeviceSurvey survey_of(std::vector<GpuInfo> gpus) {
  DeviceSurvey out;
  out.driver_version = out.runtime_version = 13000;
  out.gpus = std::move(gpus);
  out.host_total_bytes = out.host_free_bytes = std::uint64_t{64} << 30;
  out.host_threads = 2;
  return out;
}

Job job_with(const std::string& lines) {
  const std::string path = golden("picture_dev.yaml");
  std::ifstream in(path);
  std::string text;
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("gpu_ids") && !line.starts_with("dtype")) text += line + "\n";
  }
  Job job = read_job(text + lines, path, MGPU_GOLDENS);
  resolve_files(job);
  return job;
}

}  // namespace mgpu::test
