#include "cli/prepare.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/sha256.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

// Devices here are supposed, not touched: a plan is made from what a survey says.

using namespace mgpu;

TEST_SUITE_BEGIN("prepare");

namespace {

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

/// The dev golden's job with its gpu_ids and dtype replaced by `lines`.
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

PreparedJob prepare_on(Job& job, const DeviceSurvey& survey) {
  return prepare(job, open_job(job), survey);
}

}  // namespace

TEST_CASE("without gpu_ids the first usable GPU renders, and the report says which stand idle") {
  Job job = job_with("");
  const PreparedJob on = prepare_on(job, survey_of({gpu(0, 6, 1), gpu(1, 8, 6), gpu(2, 8, 6)}));
  CHECK(on.plan.devices.front().room.id == DeviceId::cuda(1));
  CHECK(on.plan.mode == "single");
  CHECK(on.plan.mode_reason == "one device; cuda:2 idle: this version renders a job on one device");
  CHECK(prepare_on(job, survey_of({gpu(0, 8, 6)})).plan.mode_reason == "one device");
  CHECK(prepare_on(job, survey_of({})).plan.devices.front().room.id == DeviceId::cpu());
}

TEST_CASE("auto computes in bf16 where the GPU has it, else in fp32") {
  Job job = job_with("");
  CHECK((prepare_on(job, survey_of({gpu(0, 8, 0)})).dtypes.unet == at::kBFloat16));
  CHECK((prepare_on(job, survey_of({gpu(0, 7, 5)})).dtypes.unet == at::kFloat));
  CHECK((prepare_on(job, survey_of({})).dtypes.vae == at::kFloat));
  Job narrow = job_with("dtype: {unet: fp16}");
  CHECK((prepare_on(narrow, survey_of({gpu(0, 8, 0)})).dtypes.unet == at::kHalf));
}

TEST_CASE("a device that is not there, or is too old") {
  const auto message = [](Job job, const DeviceSurvey& survey) {
    try {
      prepare_on(job, survey);
    } catch (const Error& error) {
      CHECK(error.code() == Exit::Usage);
      return error.message() + " | " + error.hint();
    }
    return std::string("no error");
  };
  Job job = job_with("gpu_ids: [3]");
  CHECK(message(job, survey_of({gpu(0, 8, 6), gpu(1, 8, 6)})) ==
        "device \"cuda:3\" is not on this machine | there are: cuda:0, cuda:1, cpu");
  CHECK(message(job_with("gpu_ids: [0]"), survey_of({gpu(0, 6, 1)})).starts_with("device \"cuda:0\" cannot be used: "));
}

TEST_CASE("a picture depends on the textual inversions that its prompts name, and no other") {
  const test::Folder folder;
  std::filesystem::create_directories(folder.path("embeddings"));
  const auto write = [&](float value) {
    const std::string one = test::bytes_of(std::vector<float>(128, value));
    const std::string two = test::bytes_of(std::vector<float>(96, value));
    const std::string bytes =
        test::safetensors({{"clip_l", DType::F32, {1, 128}, one}, {"t5xxl", DType::F32, {1, 96}, two}});
    folder.write("embeddings/sunny.safetensors", bytes);
    return FileIdentity{"sunny.safetensors", bytes.size(), sha256_hex(bytes)};
  };
  const FileIdentity first = write(1);
  Job job =
      read_job(fmt::format("checkpoint: flux_schnell.safetensors\n"
                           "encoders: {{clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}}\n"
                           "vae: vae_flux.safetensors\n"
                           "tokenizers: {{clip: picture_merges.txt, t5xxl: picture_spiece.model}}\n"
                           "model_paths: [\"{}\", \"{}\"]\n"
                           "images: [{{prompt: a sun, width: 64, height: 64}}, {{prompt: embedding:sunny, width: 64, "
                           "height: 64}}]\n",
                           MGPU_GOLDENS, folder.path("")),
               "job.yaml", "");
  resolve_files(job);
  const JobModels models = open_job(job);
  CHECK((models.files_of(job.images[0]) == models.files));
  REQUIRE(models.files_of(job.images[1]).size() == models.files.size() + 1);
  CHECK((models.files_of(job.images[1]).back() == first));

  // As when the picture is rendered again.
  job.expected_files = models.files_of(job.images[1]);
  CHECK_NOTHROW(open_job(job));
  write(2);
  CHECK_THROWS_AS(open_job(job), Error);
}

TEST_SUITE_END();
