#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>

#include "cli/failure.h"
#include "cli/job/checks/checks.h"
#include "cli/job/load_job.h"
#include "cli/plan/chosen_devices.h"
#include "cli/plan/plan_job.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "shard/engine.h"
#include "shard/make_plan.h"
#include "shard/needs.h"
#include "tests/drawn_weights.h"
#include "tests/model_sets.h"
#include "tests/rendering.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

// Memory of CPU devices as a job sees it: what the plan predicts, what its limits allow, and what the report measures.

using namespace mgpu;
using test::Folder;
using test::render_all;

namespace {

constexpr const char* kFlux =
    "checkpoint: flux_dev.safetensors\n"
    "encoders: {clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}\n"
    "vae: vae_flux.safetensors\n"
    "tokenizers: {clip: picture_merges.txt, t5xxl: picture_spiece.model}\n";
constexpr const char* kUNet =
    "checkpoint: sd1.safetensors\n"
    "encoders: {clip_l: picture_clip_l.safetensors}\n"
    "vae: sd_vae.safetensors\n"
    "tokenizers: {clip: picture_merges.txt}\n";
constexpr const char* kOnePicture =
    "sampler: {steps: 2, cfg: 1.0}\nimages: [{prompt: a boat, width: 64, height: 64, seed: 5}]\n";
constexpr const char* kSeveralPictures =
    "sampler: {steps: 2, cfg: 3.0}\n"
    "images: [{prompt: a boat, width: 128, height: 64, seed: 5, count: 3}, {prompt: the sun, width: 64, height: 64, "
    "batch: 2}]\n";

const std::string kFluxPicture = fmt::format("{}{}", kFlux, kOnePicture);

/// "[cpu:0, cpu:1]"
std::string virtual_cpus(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(DeviceId::cpu(i).to_string());
  return fmt::format("[{}]", fmt::join(names, ", "));
}

Job job_of(const Folder& folder, const std::string& name, const std::string& text, const std::string& gpu_ids) {
  const std::string mode = gpu_ids.find(',') == std::string::npos ? "" : "mode: shard\n";
  return load_job(folder.write(
      name + ".yaml", fmt::format("{}model_paths: [\"{}\", \"{}\"]\ngpu_ids: {}\n{}output: {{directory: {}}}\n", text,
                                  MGPU_GOLDENS, folder.path(""), gpu_ids, mode, name)));
}

/// Limits every device of the job to the most that the plan predicts for it.
void limit_to_plan(Job& job) {
  Job planned = job;
  JobModels models = open_job(planned);
  const Plan plan = prepare(planned, std::move(models), job_devices(planned, {survey_devices()})).plan;
  for (const PlannedDevice& device : plan.devices)
    job.placement.vram_limit.value.device[device.room.id] = highest(device.peak);
}

/// Renders the job under the least limits that its plan accepts, and holds what was measured against the predictions.
/// Donors are not looked at: they align each tensor, which headers' sums leave out.
void check_budgets(Job job, std::size_t devices, std::size_t donors = 0) {
  limit_to_plan(job);
  const RenderResult result = render_all({job});
  const Report& report = result.reports.front();
  CHECK(result.code == Exit::Ok);
  for (const ImageReport& image : report.images) CHECK(image.error == "");
  REQUIRE(report.devices.size() == devices + donors);
  for (const DeviceReport& device : std::span(report.devices).first(devices)) {
    CAPTURE(device.id);
    CHECK(device.before_bytes == device.driver_bytes);
    for (const Phase phase : kPhases) {
      CAPTURE(name_of(phase));
      CHECK(device.peak_bytes[phase] <= device.predicted_peak_bytes[phase]);
      CHECK(device.predicted_peak_bytes[phase] <= device.limit_bytes);
    }
    CHECK(device.peak_bytes.sample >= device.after_load_bytes);
  }
}

}  // namespace

TEST_SUITE_BEGIN("budget");

TEST_CASE("a job renders under limits of what its plan predicts, on one device and on several") {
  const Folder folder;
  folder.write("sd1.safetensors", test::safetensors(test::drawn_unet("sd1")));
  test::sd_vae(folder);
  for (const auto& [model_name, model] : {std::pair{"flux", kFlux}, std::pair{"unet", kUNet}}) {
    for (const auto& [count, pictures] : {std::pair{"one", kOnePicture}, std::pair{"several", kSeveralPictures}}) {
      for (int devices = 1; devices <= 3; ++devices) {
        const std::string name = fmt::format("{}-{}-{}", model_name, count, devices);
        CAPTURE(name);
        check_budgets(job_of(folder, name, fmt::format("{}{}", model, pictures), virtual_cpus(devices)),
                      static_cast<std::size_t>(devices));
      }
    }
  }
}

TEST_CASE("a device that streams has several pictures on their way, within what its plan predicts, to the same bytes") {
  const Folder folder;
  folder.write("sd1.safetensors", test::safetensors(test::drawn_unet("sd1")));
  test::sd_vae(folder);
  for (const auto& [name, model] : {std::pair{"flux", kFlux}, std::pair{"unet", kUNet}}) {
    const std::string shown = name;  // clang captures no structured binding
    CAPTURE(shown);
    const std::string text = fmt::format("{}{}", model, kSeveralPictures);
    const std::string kept = fmt::format("{}-kept", name), streamed = fmt::format("{}-streamed", name);
    REQUIRE(render_all({job_of(folder, kept, text, "[cpu:0]")}).code == Exit::Ok);
    Job job = job_of(folder, streamed, text + "allocation: {unet: \"cpu:0,40%;cpu,60%\"}\n", "[cpu:0]");
    Job planned = job;
    const Plan plan = prepare(planned, open_job(planned), job_devices(planned, {survey_devices()})).plan;
    CHECK(plan.passes_at_once == 4);
    check_budgets(std::move(job), 1, 1);
    for (int i = 0; i < 5; ++i) {
      const auto picture = [&](const std::string& of) {
        const std::uint64_t seed = i < 3 ? 5 + static_cast<std::uint64_t>(i) : 0;
        return folder.path(fmt::format("{0}/{0}-{1:04}-{2}.png", of, i, seed));
      };
      CHECK(test::read_all(picture(streamed)) == test::read_all(picture(kept)));
    }
  }
}

TEST_CASE("devices have peaks of their own, and a run's second job those of its first") {
  const Folder folder;
  for (const auto& [devices, gpu_ids] :
       {std::pair{"plain", "[cpu]"}, std::pair{"one", "[cpu:0]"}, std::pair{"two", "[cpu:0, cpu:1]"}}) {
    const std::string shown = devices;  // clang captures no structured binding
    CAPTURE(shown);
    std::vector<Job> jobs;
    for (const char* name : {"first", "second"})  // a job's name is its file's
      jobs.push_back(job_of(folder, fmt::format("{}-{}", name, devices), kFluxPicture, gpu_ids));
    const std::vector<Report> reports = render_all(jobs).reports;
    REQUIRE(reports.size() == 2);
    const auto &first = reports[0].devices, &second = reports[1].devices;
    REQUIRE(first.size() == second.size());
    for (std::size_t d = 0; d < first.size(); ++d) {
      CHECK(first[d].before_bytes == second[d].before_bytes);
      CHECK(first[d].after_load_bytes == second[d].after_load_bytes);
      CHECK(first[d].peak_bytes.sample > first[d].before_bytes);
      for (const Phase phase : kPhases) {
        CAPTURE(name_of(phase));
        CHECK(first[d].peak_bytes[phase] == second[d].peak_bytes[phase]);
        CHECK(first[d].predicted_peak_bytes[phase] == second[d].predicted_peak_bytes[phase]);
      }
    }
    if (first.size() > 1) CHECK(first[0].peak_bytes.sample != first[1].peak_bytes.sample);
  }
}

TEST_CASE("a device whose memory runs out is named, wherever in the list it stands") {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  const Folder folder;
  // Something else, which the plan knows nothing of, holds all but 100 bytes of cpu:1.
  limit_allocations(DeviceId::cpu(1), kGiB);
  const HostDeviceScope scope(DeviceId::cpu(1));
  const at::Tensor other = at::empty({static_cast<std::int64_t>(kGiB - 100)}, at::kByte);
  Job job = job_of(folder, "unlimited", kFluxPicture, virtual_cpus(2));
  CHECK(render_all({job}).code == Exit::Ok);
  job = job_of(folder, "limited", kFluxPicture, virtual_cpus(2));
  job.placement.vram_limit.value.each = kGiB;
  const RenderResult result = render_all({job});
  CHECK(result.code == Exit::ImageFailed);
  const ImageReport& image = result.reports.front().images.front();
  CHECK(image.status == "failed");
  CHECK(
      image.error.starts_with("out of memory on cpu:1: tried to allocate 128 KB, with 1024 MB of 1.0 GB in use\n  a "
                              "smaller picture needs less, "
                              "and a larger vram_limit gives it more\n"));
}

TEST_CASE("a hand-over that finds no room names the device that it goes to") {
  const ModelSet models = test::flux_set("schnell");
  std::vector<DeviceRoom> rooms(2);
  for (int i = 0; i < 2; ++i) {
    rooms[static_cast<std::size_t>(i)].id = DeviceId::cpu(i);
    rooms[static_cast<std::size_t>(i)].limit_bytes = std::uint64_t{1} << 30;
  }
  Engine engine(models, {},
                make_plan(component_needs(models, {}, {64, 64, 256}), rooms, {.mode = PlacementRequest::Mode::Shard}));
  const Conditioning conditioning = engine.encode(std::vector<PromptText>{{"a boat"}}).front();
  engine.load_diffusion();
  const std::vector<double> timesteps = {0.7};
  const std::vector<std::size_t> text = {0};
  const Engine::Run run = engine.begin_run(timesteps, std::vector<RunConditioning>{{&conditioning}}, {});
  const at::Tensor x = at::zeros({1, 16, 8, 8});
  limit_allocations(DeviceId::cpu(1), bytes_in_use(DeviceId::cpu(1)));
  std::string why;
  try {
    engine.evaluate(run, x, 0.7, text);
  } catch (...) {
    why = failure_of(std::current_exception(), DeviceId::cpu(0)).why;
  }
  CHECK(why.starts_with("out of memory on cpu:1: tried to allocate "));
  limit_allocations(DeviceId::cpu(1), std::uint64_t{1} << 30);
  CHECK(engine.evaluate(run, x, 0.7, text).size() == 1);  // nothing was left behind that would be in the way
}

TEST_SUITE_END();
