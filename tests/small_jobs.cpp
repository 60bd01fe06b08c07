#include "tests/small_jobs.h"

#include <fmt/format.h>

#include <filesystem>

#include "cli/job/load_job.h"
#include "tests/drawn_weights.h"
#include "tests/model_sets.h"
#include "tests/rendering.h"

namespace mgpu::test {

Jobs::Jobs() {
  folder_.write("sd1.safetensors", safetensors(drawn_unet("sd1")));
  sd_vae(folder_);
}

Job Jobs::job(const std::string& name, int devices, int pictures, const std::string& more) const {
  std::string ids = "cpu:0";
  for (int i = 1; i < devices; ++i) ids += fmt::format(", cpu:{}", i);
  return job_on(ids, name, pictures, more);
}

Job Jobs::job_on(const std::string& gpu_ids, const std::string& name, int pictures, const std::string& more,
                 int side) const {
  constexpr const char* kText =
      "checkpoint: sd1.safetensors\n"
      "encoders: {{clip_l: picture_clip_l.safetensors}}\n"
      "vae: sd_vae.safetensors\n"
      "tokenizers: {{clip: picture_merges.txt, t5xxl: picture_spiece.model}}\n"
      "model_paths: [\"{}\"]\n"
      "gpu_ids: [{}]\n{}"
      "sampler: {{steps: 2, cfg: 1}}\n"
      "images: [{{prompt: a boat, width: {}, height: {}, seed: 5, count: {}}}]\n"
      "output: {{directory: {}, name: \"{{index}}.png\"}}\n";
  const std::string goldens = std::filesystem::absolute(MGPU_GOLDENS).string();
  return load_job(
      folder_.write(name + ".yaml", fmt::format(kText, goldens, gpu_ids, more, side, side, pictures, name)));
}

std::string Jobs::picture(const std::string& job, std::size_t index) const {
  return path(job + "/" + std::to_string(index) + ".png");
}

void Jobs::clear(const std::string& job) const {
  std::filesystem::remove_all(path(job));
}

std::vector<std::string> bytes_of(const Jobs& jobs, const std::string& job, std::size_t pictures) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < pictures; ++i) out.push_back(read_all(jobs.picture(job, i)));
  return out;
}

}  // namespace mgpu::test
