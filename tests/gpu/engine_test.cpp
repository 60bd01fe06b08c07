#include "shard/engine.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "cli/job/load_job.h"
#include "cli/render/render.h"
#include "core/allocation_limit.h"
#include "core/devices.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/memory.h"
#include "tests/drawn_weights.h"
#include "tests/rendering.h"
#include "tests/small_jobs.h"
#include "tests/testing.h"

// Whole jobs on a GPU, on small models: the same bytes however the work is placed on it, what is predicted is no less
// than what is measured, in every phase and family, and limits end with their job.

using namespace mgpu;
using test::Entry;
using test::Folder;

namespace {

/// The tensors of a golden Flux, its blocks' matrices narrowed to fp8 as files without scales have them.
std::vector<Entry> in_fp8(std::vector<Entry> entries) {
  for (Entry& entry : entries) {
    const bool is_matrix = entry.shape.size() == 2 && entry.name.find("blocks.") != std::string::npos;
    if (!is_matrix) continue;
    const at::Tensor wide = at::from_blob(entry.data.data(), entry.shape, at::TensorOptions(at::kFloat)).clone();
    const at::Tensor narrow = wide.to(at::kFloat8_e4m3fn).contiguous();
    entry.dtype = DType::F8_E4M3;
    entry.data.assign(static_cast<const char*>(narrow.const_data_ptr()), narrow.nbytes());
  }
  return entries;
}

/// An all-in-one checkpoint of a UNet family, drawn.
std::vector<Entry> unet_checkpoint(const std::string& family) {
  std::vector<Entry> out = test::drawn_unet(family, "model.diffusion_model.");
  const auto add = [&](const char* part, const char* prefix) {
    std::ranges::move(test::drawn_model("unet_picture_parts.json", part, prefix), std::back_inserter(out));
  };
  if (family == "sd1") {
    add("clip_l", "cond_stage_model.transformer.");
  } else {
    add("clip_l", "conditioner.embedders.0.transformer.");
    add("open_clip", "conditioner.embedders.1.model.");
  }
  add("vae", "first_stage_model.");
  return out;
}

struct Case {
  std::string name;
  bool is_flux = false;
  std::string placement;  ///< further lines of the job
  std::string gpu_ids = "0";
};

/// Two pictures of 512 pixels a side, told two texts where the family is.
Job job_of(const Folder& folder, const std::string& checkpoint, const Case& c) {
  const std::string goldens = std::filesystem::absolute(MGPU_GOLDENS).string();
  const std::string parts = c.is_flux ? "encoders: {clip_l: picture_clip_l.safetensors, t5xxl: "
                                        "picture_t5xxl.safetensors}\nvae: vae_flux.safetensors\n"
                                      : "";
  return load_job(folder.write(
      c.name + ".yaml",
      fmt::format("checkpoint: {}\n{}tokenizers: {{clip: picture_merges.txt, t5xxl: picture_spiece.model}}\n"
                  "model_paths: [\"{}\", \"{}\"]\ngpu_ids: [{}]\n{}sampler: {{steps: 3, cfg: {}}}\n"
                  "images: [{{prompt: a boat, negative: fog, width: 512, height: 512, seed: 5, count: 2}}]\n"
                  "output: {{directory: {}, name: \"{{index}}.png\"}}\n",
                  checkpoint, parts, goldens, folder.path(""), c.gpu_ids, c.placement, c.is_flux ? 1 : 5, c.name)));
}

/// Renders it; what was predicted is no less than what was measured.
std::vector<std::string> pictures_of(const Folder& folder, const std::string& checkpoint, const Case& c) {
  CAPTURE(c.name);
  const RenderResult result = test::render_all({job_of(folder, checkpoint, c)});
  CHECK(result.code == Exit::Ok);
  const Report& report = result.reports.at(0);
  for (const DeviceReport& device : report.devices) {
    if (!device.id.starts_with("cuda")) continue;
    CAPTURE(device.id);
    for (const Phase phase : kPhases) {
      CAPTURE(name_of(phase));
      CHECK(device.peak_bytes[phase] <= device.predicted_peak_bytes[phase]);
    }
    CHECK(device.warnings.empty());
  }
  std::vector<std::string> out;
  for (const ImageReport& image : report.images) {
    CHECK_MESSAGE(image.error.empty(), image.error);
    out.push_back(test::read_all(folder.path(c.name + "/" + image.file)));
  }
  return out;
}

/// Resident, with little memory, streaming, several passes at once with followers.
void check_placements(const std::string& name, bool is_flux, const std::vector<Entry>& entries) {
  const Folder folder;
  const std::string checkpoint = name + ".safetensors";
  folder.write(checkpoint, test::safetensors(entries));
  const auto run = [&](const std::string& where, const std::string& placement) {
    return pictures_of(folder, checkpoint, {name + "_" + where, is_flux, placement});
  };
  const std::vector<std::string> expected = run("whole", "");
  REQUIRE(expected.size() == 2);
  CHECK(expected[0] != expected[1]);
  CHECK(run("streaming", "allocation: {unet: \"cuda:0,50%;cpu,50%\"}\n") == expected);
  CHECK(run("lent", "allocation: {unet: \"cpu,*#cuda:0\"}\n") == expected);
  CHECK(run("at_once", "decode: {way: whole}\n") == expected);
  // A part on the CPU in fp32: other bits, the same plan to be kept, and passes that followers send on.
  pictures_of(folder, checkpoint,
              {name + "_shared", is_flux,
               "mode: shard\nspeed: {cuda:0: 1.0, cpu: 1.0}\nallocation: {unet: \"cuda:0,70%;cpu,30%\", vae: cuda:0}\n",
               "0, cpu"});
  if (survey_devices().gpus.size() < 2) return;
  const std::string two = "mode: shard\nspeed: {cuda:0: 1.0, cuda:1: 1.0}\n";
  CHECK(pictures_of(folder, checkpoint, {name + "_two", is_flux, two, "0, 1"}) == expected);
  CHECK(pictures_of(folder, checkpoint,
                    {name + "_donor", is_flux, "allocation: {unet: \"cuda:0,50%;cuda:1,50%\"}\n", "0"}) == expected);
}

}  // namespace

TEST_SUITE_BEGIN("engine");

TEST_CASE("Flux on a GPU: the same bytes in every placement, within what is predicted, fp8 too") {
  for (const char* kind : {"dev", "schnell"}) {
    const std::vector<Entry> entries = test::deeper_flux(golden(std::string("flux_") + kind + ".safetensors"), 3, 5);
    check_placements(kind, true, entries);
    check_placements(std::string(kind) + "_fp8", true, in_fp8(entries));
  }
}

TEST_CASE("UNets on a GPU: the same bytes in every placement, within what is predicted") {
  for (const char* family : {"sd1", "sdxl"}) check_placements(family, false, unet_checkpoint(family));
}

TEST_CASE("passes that go through a GPU and the CPU by its follower give what each gives alone") {
  const test::Jobs jobs;
  const std::string shared =
      "mode: shard\nspeed: {cuda:0: 1.0, cpu: 1.0}\nallocation: {unet: \"cuda:0,50%;cpu,50%\"}\n";
  REQUIRE(test::render_all({jobs.job_on("0, cpu", "one", 1, shared)}).code == Exit::Ok);
  REQUIRE(test::render_all({jobs.job_on("0, cpu", "many", 12, shared)}).code == Exit::Ok);
  CHECK(test::read_all(jobs.picture("one", 0)) == test::read_all(jobs.picture("many", 0)));
  REQUIRE(test::render_all({jobs.job_on("0, cpu", "again", 12, shared)}).code == Exit::Ok);
  CHECK(test::bytes_of(jobs, "again", 12) == test::bytes_of(jobs, "many", 12));
}

TEST_CASE("a GPU's limit ends with its job, whatever it is in the next one") {
  const at::TensorOptions on_gpu = at::TensorOptions(at::kByte).device(at::kCUDA);
  constexpr std::int64_t kBytes = std::int64_t{256} << 20;
  release_cached(DeviceId::cuda(0));
  {
    const AllocationLimit limit(DeviceId::cuda(0), 64 << 20);
    CHECK_THROWS_AS(at::empty({kBytes}, on_gpu), c10::OutOfMemoryError);
  }
  CHECK(at::empty({kBytes}, on_gpu).defined());
}

TEST_CASE("what runs are told goes along when a smaller placement begins on another GPU") {
  if (survey_devices().gpus.size() < 2) {
    MESSAGE("this machine has one GPU");
    return;
  }
  // cuda:0 has just what it needs, and is taken for out of memory by the first stage: what is left begins on cuda:1.
  const test::Jobs jobs;
  const std::string two = "speed: {cuda:0: 1.0, cuda:1: 1.0}\nallocation: {vae: cuda:1}\n";
  std::atomic<int> loads = 0;
  fault_hook = [&](std::string_view place) {
    if (place == "load") ++loads;
    if (place == "stage" && loads <= 2)
      throw c10::OutOfMemoryError({"", "", 0}, "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total");
  };
  const RenderResult result = test::render_all({jobs.job_on("0, 1", "first", 2, two)});
  fault_hook = nullptr;
  for (const ImageReport& image : result.reports.at(0).images) {
    MESSAGE(image.status, " ", image.error);
    CHECK(image.error.find("Expected all tensors to be on the same device") == std::string::npos);
  }
}

TEST_SUITE_END();
