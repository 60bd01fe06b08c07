#include <c10/util/Exception.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <filesystem>

#include "cli/job/load_job.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "tests/drawn_weights.h"
#include "tests/rendering.h"
#include "tests/testing.h"

// The ways of decoding and encoding pictures, in jobs over virtual CPU devices.

using namespace mgpu;
using test::Folder;
using test::read_all;
using test::render_all;

namespace {

constexpr const char* kModels =
    "checkpoint: flux_schnell.safetensors\n"
    "encoders: {clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}\n"
    "vae: vae_flux.safetensors\n"
    "tokenizers: {clip: picture_merges.txt, t5xxl: picture_spiece.model}\n"
    "sampler: {steps: 1, cfg: 1.0}\n";
constexpr const char* kBoat = "images: [{prompt: a boat, width: 256, height: 208, seed: 5}]\n";
constexpr const char* kTiles = "decode: {way: tiled, tile: 128, overlap: 42}\n";

/// A job in a folder of its own.
Job job_of(const Folder& folder, const std::string& name, const std::string& more) {
  return load_job(
      folder.write(name + ".yaml", fmt::format("{}model_paths: [\"{}\", \"{}\"]\n{}output: {{directory: {}, "
                                               "name: picture.png}}\n",
                                               kModels, MGPU_GOLDENS, folder.path(""), more, name)));
}

struct Rendered {
  std::string png;
  Report report;
};

Rendered rendered(const Folder& folder, const std::string& name, const std::string& more) {
  const RenderResult result = render_all({job_of(folder, name, more)});
  CHECK(result.code == Exit::Ok);
  return {read_all(folder.path(name + "/picture.png")), result.reports.front()};
}

/// Levels of the autoencoder that a device of the report has.
int levels_on(const DeviceReport& device) {
  int out = 0;
  for (const Assignment& a : device.assignments) out += a.component == "vae" && a.kind == "level" ? a.blocks : 0;
  return out;
}

/// What holds in every report of a render that ended well.
void check_memory(const Report& report) {
  for (const DeviceReport& device : report.devices) {
    CAPTURE(device.id);
    for (const Phase phase : kPhases) {
      CAPTURE(name_of(phase));
      CHECK(device.peak_bytes[phase] <= device.predicted_peak_bytes[phase]);
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("decode_modes");

TEST_CASE("several devices decode a picture to the bytes that one does") {
  const Folder folder;
  const Rendered whole = rendered(folder, "whole", fmt::format("gpu_ids: [cpu:0]\ndecode: {{way: whole}}\n{}", kBoat));
  check_memory(whole.report);
  for (const char* devices : {"[cpu:0, cpu:1]", "[cpu:0, cpu:1, cpu:2]"}) {
    CAPTURE(devices);
    const Rendered parallel = rendered(folder, fmt::format("parallel{}", std::string(devices).size()),
                                       fmt::format("gpu_ids: {}\ndecode: {{way: parallel}}\n{}", devices, kBoat));
    CHECK(parallel.png == whole.png);
    CHECK(parallel.report.mode_reason.find(" are coded by ") != std::string::npos);
    check_memory(parallel.report);
    for (const DeviceReport& device : parallel.report.devices) {
      CHECK(levels_on(device) == 4);
      CHECK(device.peak_bytes.decode > device.after_load_bytes);
      CHECK(device.peak_bytes.decode < whole.report.devices[0].peak_bytes.decode);
    }
  }
}

TEST_CASE("the devices that the allocation lists decode") {
  const Folder folder;
  const Rendered some = rendered(
      folder, "some", fmt::format("gpu_ids: [cpu:0, cpu:1, cpu:2]\nallocation: {{vae: [cpu:1, cpu:2]}}\n{}", kBoat));
  CHECK(levels_on(some.report.devices[0]) == 0);
  CHECK(levels_on(some.report.devices[1]) == 4);
  CHECK(levels_on(some.report.devices[2]) == 4);
  CHECK(some.png == rendered(folder, "one", fmt::format("gpu_ids: [cpu:0]\n{}", kBoat)).png);
  CHECK_THROWS_WITH_AS(
      render_all({job_of(folder, "absent",
                         fmt::format("gpu_ids: [cpu:0, cpu:1]\nallocation: {{vae: [cpu:1, cpu:2]}}\n{}", kBoat))}),
      doctest::Contains("the vae cannot lie on \"cpu:2\", which is not in gpu_ids"), Error);
}

TEST_CASE("a picture in tiles has the same bytes on any number of devices, and is about the whole one") {
  const Folder folder;
  const Rendered whole = rendered(folder, "whole", fmt::format("gpu_ids: [cpu:0]\n{}", kBoat));
  const Rendered tiled = rendered(folder, "tiled", fmt::format("gpu_ids: [cpu:0]\n{}{}", kTiles, kBoat));
  CHECK(tiled.png != whole.png);
  CHECK(tiled.report.mode_reason.find("; pictures are decoded in tiles of at most 128x128, their statistics estimated "
                                      "from a smaller copy") != std::string::npos);
  const Rendered two =
      rendered(folder, "two", fmt::format("gpu_ids: [cpu:0, cpu:1]\nmode: shard\n{}{}", kTiles, kBoat));
  CHECK(two.png == tiled.png);
  check_memory(tiled.report);
  check_memory(two.report);
}

TEST_CASE("auto takes the first way that fits: one device, several, slabs, tiles") {
  const Folder folder;
  const std::string wide = "images: [{prompt: a boat, width: 768, height: 512, seed: 5}]\n";
  const auto reason = [&](const std::string& name, const std::string& devices, int limit) {
    return rendered(folder, name, fmt::format("gpu_ids: {}\nvram_limit: {}MB\n{}", devices, limit, wide))
        .report.mode_reason;
  };
  CHECK(reason("roomy", "[cpu:0, cpu:1]", 300).find("coded") == std::string::npos);
  const std::string shared = reason("shared", "[cpu:0, cpu:1]", 80);
  CHECK(shared.find("coded by 2 devices together") != std::string::npos);
  CHECK(shared.find("slab") == std::string::npos);
  CHECK(shared.find("tiles") == std::string::npos);
  CHECK(reason("slabs", "[cpu:0]", 80).find("decoded slab by slab, to the same bits") != std::string::npos);
  CHECK(read_all(folder.path("slabs/picture.png")) == read_all(folder.path("roomy/picture.png")));
  CHECK(reason("told", "[cpu:0]\ndecode: {way: whole}", 80).find("slab by slab") != std::string::npos);
  CHECK(reason("tight", "[cpu:0]\ndecode: {tile: 128, overlap: 42}", 40).find("decoded in tiles") != std::string::npos);
}

TEST_CASE("init images are encoded by several devices to what one gives") {
  const Folder folder;
  const std::string first = rendered(folder, "first", fmt::format("gpu_ids: [cpu:0]\n{}", kBoat)).png;
  folder.write("in.png", first);
  const std::string again = "images: [{prompt: a sun, init_image: in.png, seed: 6, sampler: {denoise: 0.5}}]\n";
  const Rendered one = rendered(folder, "again", "gpu_ids: [cpu:0]\n" + again);
  const Rendered two = rendered(folder, "two", "gpu_ids: [cpu:0, cpu:1]\ndecode: {way: parallel}\n" + again);
  CHECK(two.png == one.png);
  check_memory(one.report);
  check_memory(two.report);
}

TEST_CASE("init images are encoded slab by slab to what is encoded whole") {
  const Folder folder;
  folder.write(
      "in.png",
      rendered(folder, "first", "gpu_ids: [cpu:0]\nimages: [{prompt: a boat, width: 768, height: 512}]\n").png);
  const std::string again = "images: [{prompt: a sun, init_image: in.png, seed: 6, sampler: {denoise: 0.5}}]\n";
  const Rendered whole = rendered(folder, "again", "gpu_ids: [cpu:0]\n" + again);
  const Rendered slabs = rendered(folder, "slabs", "gpu_ids: [cpu:0]\nvram_limit: 60MB\n" + again);
  CHECK(slabs.report.mode_reason.find("slab by slab") != std::string::npos);
  CHECK(slabs.png == whole.png);
  CHECK(slabs.report.devices[0].peak_bytes.encode < whole.report.devices[0].peak_bytes.encode);
  check_memory(slabs.report);
}

TEST_CASE("a decode that runs out of memory is done in slabs, where the way is auto") {
  const Folder folder;
  std::atomic<int> exchanges = 0;
  fault_hook = [&](std::string_view place) {
    if (place == "exchange" && ++exchanges == 20)
      throw c10::OutOfMemoryError({"", "", 0}, "CUDA out of memory. Tried to allocate 2.00 GiB.");
  };
  // Two devices, so that there are exchanges; limited, so that they decode together.
  const std::string text =
      "gpu_ids: [cpu:0, cpu:1]\nvram_limit: 80MB\nimages: [{prompt: a boat, width: 768, height: 512}]\n";
  rendered(folder, "auto", text);
  CHECK(exchanges > 20);
  exchanges = 0;
  const RenderResult asked = render_all({job_of(folder, "told", "decode: {way: parallel}\n" + text)});
  fault_hook = nullptr;
  CHECK(asked.code == Exit::Ok);  // rendered again, pass by pass
  CHECK(asked.reports.front().mode_reason.find("ran out of memory") != std::string::npos);
}

TEST_SUITE_END();
