#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "cli/job/checks/checks.h"
#include "cli/job/find_files.h"
#include "cli/job/read_job.h"
#include "cli/plan/plan_job.h"
#include "core/sha256.h"
#include "shard/make_plan.h"
#include "tests/prepare_cases.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

// Devices here are supposed, not touched: a plan is made from what a survey says.

using namespace mgpu;
using namespace mgpu::test;

TEST_SUITE_BEGIN("prepare");

namespace {

PreparedJob prepare_on(Job& job, const DeviceSurvey& survey) {
  JobModels models = open_job(job);
  return prepare(job, std::move(models), job_devices(job, {survey}));
}

}  // namespace

TEST_CASE("without gpu_ids every usable GPU is there to be used, else the CPU") {
  Job job = job_with("");
  const PreparedJob on = prepare_on(job, survey_of({gpu(0, 6, 1), gpu(1, 8, 6), gpu(2, 8, 6)}));
  REQUIRE(on.plan.devices.size() == 2);
  CHECK(on.plan.devices.front().room.id == DeviceId::cuda(1));
  CHECK(on.plan.mode == "shard");
  CHECK(on.plan.mode_reason == "3 evaluations that do not wait for each other keep 2 devices busy");
  CHECK(prepare_on(job, survey_of({gpu(0, 8, 6)})).plan.mode_reason == "one device");
  CHECK(prepare_on(job, survey_of({})).plan.devices.front().room.id == DeviceId::cpu());
  Job one = job_with("mode: single");
  CHECK(prepare_on(one, survey_of({gpu(0, 8, 6), gpu(1, 8, 6)})).plan.mode_reason ==
        "the job asks for one device; cuda:1 idle");
}

TEST_CASE("the conditionings of all pictures are evaluations") {
  Job job = job_with("");  // one picture with cfg 1, one with 2
  const ChosenDevices devices = job_devices(job, {survey_of({gpu(0, 8, 6)})});
  CHECK(placement_request(job, devices).evaluations == 3);
  CHECK(placement_request(job, devices).texts_a_run == 2);
  job.images[0].count.value = 4;
  job.images[0].batch.value = 2;
  CHECK(placement_request(job, devices).evaluations == 10);
  job.images[1].conditions.value.resize(2);
  CHECK(placement_request(job, devices).evaluations == 12);
  CHECK(placement_request(job, devices).texts_a_run == 4);
}

TEST_CASE("runs that are told the same at the same noise levels are told one text") {
  Job job = job_with("");
  job.images.resize(1);
  const auto texts = [&] { return placement_request(job, job_devices(job, {survey_of({gpu(0, 8, 6)})})).texts; };
  CHECK(texts() == 1);
  job.images[0].count.value = 9;
  job.images.push_back(job.images[0]);
  job.images[1].seed.value = 99;
  job.images[1].sampler.step_noise.value = StepNoiseKind::Philox;
  CHECK(texts() == 1);
  job.images[1].prompt = "another";
  CHECK(texts() == 2);
  job.images[1].prompt = job.images[0].prompt;
  job.images[1].sampler.steps.value += 1;
  CHECK(texts() == 2);
  job.images[1].sampler = job.images[0].sampler;
  job.images[1].sampler.guidance.value += 1.0;
  CHECK(texts() == 2);
}

TEST_CASE("what is computed ahead covers every level at which the sampler evaluates the model") {
  const auto precomputed_bytes = [](const std::string& name) {
    Job job = job_with("");
    job.images.resize(1);
    job.images[0].sampler.name.value = name;
    job.images[0].sampler.steps.value = 6;
    const PreparedJob prepared = prepare_on(job, survey_of({gpu(0, 8, 6)}));
    return std::ranges::find(prepared.needs, "unet", &ComponentNeed::name)->blocks[0].bytes_per_prompt[0];
  };
  const std::uint64_t level = precomputed_bytes("euler") / 6;
  CHECK(precomputed_bytes("dpmpp_2s_ancestral") == 11 * level);  // a midpoint in each step but the last
  CHECK(precomputed_bytes("seeds_3") == 16 * level);
}

TEST_CASE("a smaller plan asks less of the device that ran out of memory, which may still use what it might") {
  Job job = job_with("gpu_ids: [cpu:0, cpu:1]");
  const PreparedJob roomy = prepare_on(job, survey_of({}));
  REQUIRE(roomy.plan.devices.size() == 2);
  CHECK_FALSE(smaller_plan(roomy, DeviceId::cuda(7)));
  // Just what the first device needs, also once it has no more: what serves only before the steps has gone by then.
  PreparedJob tight = prepare_on(job, survey_of({}));
  std::uint64_t most = 0;
  for (int i = 0; i < 2; ++i) {
    const PhaseBytes& peak = tight.plan.devices[0].peak;
    most = tight.rooms[0].limit_bytes = highest(peak);
    tight.plan = make_plan(tight.needs, tight.rooms, tight.request);
    REQUIRE(tight.plan.fits());
  }
  const std::optional<Plan> smaller = smaller_plan(tight, DeviceId::cpu(0));
  REQUIRE(smaller);
  CHECK(smaller->fits());
  for (const PlannedDevice& device : smaller->devices) {
    if (device.room.id != DeviceId::cpu(0)) continue;
    CHECK(device.room.limit_bytes == most);
    CHECK(highest(device.peak) <= most - most / 10);
  }
}

TEST_CASE("limits and speeds of devices, virtual ones too") {
  Job job = job_with("gpu_ids: [cpu:0, 0, cpu:1]\nvram_limit: {cpu:0: 1GB, cuda:0: 8GB}\nspeed: {cpu:0: 0.25}");
  const ChosenDevices devices = job_devices(job, {survey_of({gpu(0, 8, 6)})});
  REQUIRE(devices.rooms.size() == 3);
  CHECK(devices.rooms[0].id == DeviceId::cpu(0));
  CHECK(devices.rooms[0].limit_bytes == std::uint64_t{1} << 30);
  CHECK(devices.rooms[0].speed == 0.25);
  CHECK(devices.rooms[1].limit_bytes == std::uint64_t{8} << 30);
  CHECK(devices.rooms[1].total_bytes == std::uint64_t{24} << 30);
  CHECK(devices.rooms[1].speed == 1.0);
  CHECK(devices.rooms[2].limit_bytes == std::uint64_t{63} << 30);  // of main memory's 64
  CHECK(devices.rooms[2].speed == 0.02);                           // a CPU beside a GPU
  CHECK_FALSE(devices.all_cuda);
  CHECK_FALSE(devices.all_bf16);
}

TEST_CASE("missing devices are dropped where the job says so, from its allocations too") {
  Job job = job_with(
      "gpu_ids: [0, 1, 5]\nmissing_devices: drop\n"
      "allocation: {unet: \"cuda:0,40%;cuda:5,20%;cuda:1,40%\"}");
  const PreparedJob on = prepare_on(job, survey_of({gpu(0, 8, 6), gpu(1, 8, 6)}));
  CHECK(on.plan.devices.size() == 2);
  CHECK(on.plan.mode_reason == "as the allocation says; cuda:5 is missing and was dropped");
}

TEST_CASE("allocations of the long form") {
  const auto request = [](const char* allocation) {
    const Job job = job_with(std::string("gpu_ids: [0, 1]\nallocation: ") + allocation);
    std::string out;
    const ChosenDevices devices = job_devices(job, {survey_of({gpu(0, 8, 6), gpu(1, 8, 6)})});
    for (const auto& [component, given] : placement_request(job, devices).allocation)
      out += component + "=" + to_string(given) + " ";
    return out;
  };
  CHECK(request("{unet: cuda:1, vae: [0]}") == "unet=#cuda:1 vae=#cuda:0 ");
  CHECK(request("{unet: {compute: 0, virtual_vram_gb: 4.0, donor: cpu}}") == "unet=#cuda:0;4;cpu ");
  CHECK(request("{unet: {virtual_vram_gb: 4.0, donor: [1, cpu]}}") == "unet=#cuda:0;4;cuda:1,cpu ");
  CHECK(request("{unet: {compute: 1, virtual_vram_gb: 4.0, expert: \"0,50%;1,50%\"}}") ==
        "unet=cuda:0,50%;cuda:1,50%#cuda:1 ");
  CHECK(request("{unet: {donor: cpu}}") == "");
  CHECK(request("{clip: {compute: 1, virtual_vram_gb: 2.0, donor: 1, expert: \"\"}, t5xxl: \"0,1gb;1,*\"}") ==
        "clip_g=#cuda:1;2;cuda:1 clip_l=#cuda:1;2;cuda:1 t5xxl=cuda:0,1gb;cuda:1,* ");
}

TEST_CASE("an allocation that cannot be is refused at its column") {
  const auto message = [](const char* allocation) -> std::string {
    Job job = job_with(std::string("gpu_ids: [0, 1]\nallocation: ") + allocation);
    try {
      prepare_on(job, survey_of({gpu(0, 8, 6), gpu(1, 8, 6)}));
    } catch (const Error& error) {
      CHECK(error.code() == Exit::Usage);
      return std::to_string(error.where().column) + ": " + error.message();
    }
    return "no error";
  };
  CHECK(message("{unet: \"cuda:0,60%;cuda:7,40%\"}") == "32: cuda:7 is not on this machine");
  CHECK(message("{unet: 'cuda:0,60%;cuda:7,40%'}") == "32: cuda:7 is not on this machine");
  CHECK(message("{unet: \"cuda:0,60%;cuda:1,40%#cuda:3\"}") == "43: cuda:3 does not compute in this job");
  CHECK(message("{vae: {compute: cpu}}") == "19: cpu does not compute in this job");
}

TEST_CASE("supposed machines") {
  const Machine machine = suppose_machine("cuda:0=8GB,1=24GB@0.5,cpu=16GB,cpu:2=512MB@0.1");
  REQUIRE(machine.survey.gpus.size() == 2);
  CHECK(machine.survey.gpus[0].total_bytes == std::uint64_t{8} << 30);
  CHECK(machine.survey.gpus[1].id == DeviceId::cuda(1));
  CHECK(machine.speed.at(DeviceId::cuda(1)) == 0.5);
  CHECK(machine.survey.host_free_bytes == std::uint64_t{16} << 30);
  CHECK(machine.virtual_cpus.at(DeviceId::cpu(2)) == std::uint64_t{512} << 20);
  const ChosenDevices devices = job_devices(job_with("gpu_ids: [1, cpu:2]"), machine);
  CHECK(devices.rooms[0].speed == 0.5);
  CHECK(devices.rooms[1].limit_bytes == std::uint64_t{512} << 20);
  CHECK(job_devices(job_with(""), suppose_machine("cpu:0=1GB,cpu:1=1GB")).rooms.size() == 2);
  const auto fault = [](const char* text) -> std::string {
    try {
      suppose_machine(text);
    } catch (const Error& error) {
      return error.message();
    }
    return "no error";
  };
  CHECK(fault("gpu=8GB") == "\"gpu\" is no device");
  CHECK(fault("cuda:0=8GB,0=24GB") == "cuda:0 is given twice");
  CHECK(fault("cuda:0") == "cuda:0 has no memory");
  CHECK(fault("cuda:0=8TB") == "\"8TB\" is no size such as 8GB");
  CHECK(fault("cuda:0=0.5") == "\"0.5\" is no size such as 8GB");
  CHECK(fault("cuda:0=8GB@fast") == "\"fast\" is no speed such as 0.5");
  CHECK(fault("cuda:0=8GB@0") == "\"0\" is no speed such as 0.5");
  CHECK(fault("cuda:0=8GB,") == "\"\" is no device");
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
