#include <c10/util/Exception.h>
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "cli/job/read_job.h"
#include "cli/plan/device_probes.h"
#include "core/driver_probe.h"
#include "core/own_memory.h"
#include "tests/byte_sizes.h"
#include "tests/tensor_writer.h"

using namespace mgpu;

TEST_SUITE_BEGIN("driver_bytes");

namespace {

using test::kGiB;
using test::kMiB;

/// A machine of these GPUs, which have UUIDs, as a survey finds them.
Machine machine_of(const std::vector<std::string>& names) {
  Machine out;
  out.survey.driver_version = 13000;
  out.survey.host_total_bytes = out.survey.host_free_bytes = 64 * kGiB;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string uuid = "GPU-" + std::to_string(i);
    out.survey.gpus.push_back({DeviceId::cuda(static_cast<int>(i)), names[i], uuid, 8, 6, 24 * kGiB, 20 * kGiB, ""});
  }
  return out;
}

Job job_on(const std::string& ids) {
  return read_job("checkpoint: a.safetensors\nimages: [{prompt: x}]\ngpu_ids: " + ids, "job.yaml", "", {});
}

std::vector<std::uint64_t> driver_bytes_of(const ChosenDevices& devices) {
  std::vector<std::uint64_t> out;
  for (const DeviceRoom& room : devices.rooms) out.push_back(room.driver_bytes);
  return out;
}

/// Measures 300 MiB on "small" GPUs, 700 on others.
struct Measuring {
  test::Folder folder;
  std::vector<std::string> measured, asked, notes;

  SpeedSource source() {
    SpeedSource out{[this](const std::string& note) { notes.push_back(note); }, folder.path("cache/speeds.json"),
                    [](const DeviceId&, const Machine&) { return 1e12; }};
    out.measure = [this](const DeviceId& id, const Machine& machine) {
      measured.push_back(id.to_string());
      const auto gpu = static_cast<std::size_t>(id.index);
      return (machine.survey.gpus[gpu].name == "small" ? 300 : 700) * kMiB;
    };
    out.ask_free = [this](GpuInfo& gpu) {
      asked.push_back(gpu.id.to_string());
      gpu.free_is_known = true;
      gpu.free_bytes = 5 * kGiB;
    };
    return out;
  }
};

}  // namespace

TEST_CASE("what the driver takes is measured once for each kind of GPU that the job uses, and remembered") {
  Measuring measuring;
  Machine machine = machine_of({"large", "small", "small", "other"});
  const Job job = job_on("[0, 1, 2, cpu]");
  const ChosenDevices before = remembered_devices(job, machine, measuring.source());
  CHECK(driver_bytes_of(before) ==
        std::vector<std::uint64_t>{kAssumedDriverBytes, kAssumedDriverBytes, kAssumedDriverBytes, 0});
  CHECK(measuring.measured.empty());
  const std::vector<std::uint64_t> known = {700 * kMiB, 300 * kMiB, 300 * kMiB, 0};
  CHECK(driver_bytes_of(probed_devices(job, machine, measuring.source())) == known);
  CHECK(measuring.measured == std::vector<std::string>{"cuda:0", "cuda:1"});

  Machine again = machine_of({"large", "small", "small", "other"});
  CHECK(driver_bytes_of(remembered_devices(job, again, measuring.source())) == known);
  CHECK(driver_bytes_of(probed_devices(job, again, measuring.source())) == known);
  CHECK(measuring.measured.size() == 2);
  CHECK(measuring.notes.empty());

  again = machine_of({"large", "small"});
  again.survey.driver_version = 13010;  // a new driver is measured anew
  CHECK(remembered_devices(job_on("[0, 1]"), again, measuring.source()).unmeasured.size() == 2);
}

TEST_CASE("how modules are loaded is part of what is remembered") {
  const char* before = std::getenv("CUDA_MODULE_LOADING");
  const std::string kept = before ? before : "";
  ::unsetenv("CUDA_MODULE_LOADING");
  CHECK(driver_key("NVIDIA H200", 13000) == "NVIDIA H200, driver 13000, mgpu-render 0.1.0");
  ::setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  CHECK(driver_key("NVIDIA H200", 13000) == "NVIDIA H200, driver 13000, mgpu-render 0.1.0, modules EAGER");
  before ? ::setenv("CUDA_MODULE_LOADING", kept.c_str(), 1) : ::unsetenv("CUDA_MODULE_LOADING");
}

TEST_CASE("a supposed machine's GPUs are not measured") {
  Measuring measuring;
  Machine machine = suppose_machine("cuda:0=24GB,cuda:1=24GB,cpu=64GB");
  CHECK(driver_bytes_of(probed_devices(job_on("[0, 1]"), machine, measuring.source())) ==
        std::vector<std::uint64_t>{kAssumedDriverBytes, kAssumedDriverBytes});
  CHECK(measuring.measured.empty());
}

TEST_CASE("where measuring fails or finds nothing, what is assumed is counted") {
  Measuring measuring;
  SpeedSource source = measuring.source();
  source.measure = [](const DeviceId&, const Machine&) -> std::uint64_t {
    throw c10::OutOfMemoryError({"", "", 0}, "CUDA out of memory.");
  };
  Machine machine = machine_of({"large"});
  CHECK(driver_bytes_of(probed_devices(job_on("[0]"), machine, source)).front() == kAssumedDriverBytes);
  CHECK(measuring.notes == std::vector<std::string>{"what the driver takes of cuda:0 cannot be measured: out of memory "
                                                    "on cuda:0: CUDA out of memory.: 1.1 GB are counted"});
  source.measure = [](const DeviceId&, const Machine&) { return std::uint64_t{0}; };
  CHECK(driver_bytes_of(probed_devices(job_on("[0]"), machine, source)).front() == kAssumedDriverBytes);
  CHECK(load_rates(source.cache_file).driver_bytes.empty());
}

TEST_CASE("a run that took more than was counted is learned from, one that took less is not") {
  Measuring measuring;
  Machine machine = machine_of({"large"});
  const DeviceId gpu = DeviceId::cuda(0);
  const SpeedSource source = measuring.source();
  probed_devices(job_on("[0]"), machine, source);
  for (const std::uint64_t bytes : {std::uint64_t{0}, 600 * kMiB, 700 * kMiB})
    learn_driver_bytes(gpu, bytes, machine, source);
  CHECK(known_driver_bytes(gpu, machine) == 700 * kMiB);
  learn_driver_bytes(gpu, 800 * kMiB, machine, source);
  CHECK(known_driver_bytes(gpu, machine) == 912 * kMiB);  // a tenth and 32 MiB more
  Machine again = machine_of({"large"});
  CHECK(driver_bytes_of(remembered_devices(job_on("[0]"), again, source)).front() == 912 * kMiB);
}

TEST_CASE("only GPUs of the job are asked by a context for what is free, where the survey does not know it") {
  Measuring measuring;
  Machine machine = machine_of({"large", "large", "large"});
  for (GpuInfo& gpu : machine.survey.gpus) gpu.free_is_known = false;
  machine.survey.gpus[1].free_is_known = true;
  const ChosenDevices devices = remembered_devices(job_on("[0, 1]"), machine, measuring.source());
  CHECK(measuring.asked == std::vector<std::string>{"cuda:0"});
  CHECK(devices.rooms[0].limit_bytes == 5 * kGiB);
  CHECK(devices.rooms[1].limit_bytes == 20 * kGiB);
  remembered_devices(job_on("[0, 1]"), machine, measuring.source());
  CHECK(measuring.asked.size() == 1);
}

TEST_SUITE_END();
