#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cli/job/read_job.h"
#include "cli/plan/device_probes.h"
#include "cli/plan/speed_cache.h"
#include "tests/tensor_writer.h"

using namespace mgpu;

TEST_SUITE_BEGIN("speeds");

namespace {

/// A machine of these GPUs, and a CPU.
Machine machine_of(const std::vector<std::string>& names) {
  Machine out;
  out.survey.driver_version = 13000;
  out.survey.host_total_bytes = out.survey.host_free_bytes = std::uint64_t{64} << 30;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::uint64_t bytes = std::uint64_t{24} << 30;
    out.survey.gpus.push_back({DeviceId::cuda(static_cast<int>(i)), names[i], "", 8, 6, bytes, bytes, ""});
  }
  return out;
}

Job job_with(const std::string& lines) {
  return read_job("checkpoint: a.safetensors\nimages: [{prompt: x}]\n" + lines, "job.yaml", "", {});
}

std::vector<double> speeds_of(const ChosenDevices& devices) {
  std::vector<double> out;
  for (const DeviceRoom& room : devices.rooms) out.push_back(room.speed);
  return out;
}

std::string text_of(const std::string& path) {
  std::ifstream stream(path);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

/// Probes as a machine would whose "fast" GPUs do 8e14, "slow" ones 3.3e14 and the CPU 1e12, and keeps what was said.
struct Probing {
  test::Folder folder;
  std::vector<std::string> probed, notes;

  SpeedSource source() {
    return {[this](const std::string& note) { notes.push_back(note); }, folder.path("cache/speeds.json"),
            [this](const DeviceId& id, const Machine& machine) {
              probed.push_back(id.to_string());
              if (!id.is_cuda()) return 1e12;
              return machine.survey.gpus[static_cast<std::size_t>(id.index)].name == "fast" ? 8e14 : 3.3e14;
            }};
  }
};

}  // namespace

TEST_CASE("speeds are rounded to a twentieth of the fastest, slower ones to a hundredth") {
  CHECK(relative_speed(8e14, 8e14) == 1.0);
  CHECK(relative_speed(0.976, 1.0) == 1.0);
  CHECK(relative_speed(0.974, 1.0) == 0.95);
  CHECK(relative_speed(0.425001, 1.0) == 0.45);
  CHECK(relative_speed(3.3e14, 8e14) == 0.4);
  CHECK(relative_speed(0.05, 1.0) == 0.05);
  CHECK(relative_speed(0.0499, 1.0) == 0.05);
  CHECK(relative_speed(0.0312, 1.0) == 0.03);
  CHECK(relative_speed(1e-6, 1.0) == 0.01);
}

TEST_CASE("a rate is remembered by device, driver and version of this program") {
  CHECK(speed_key("NVIDIA H200", 13000) == "NVIDIA H200, driver 13000, mgpu-render 0.1.0");
  const Machine machine = machine_of({"NVIDIA H200"});
  CHECK(rate_key(DeviceId::cuda(0), machine) == "NVIDIA H200, driver 13000, mgpu-render 0.1.0");
  const std::string cpu = fmt::format("CPU, {} threads, driver 13000, mgpu-render 0.1.0", at::get_num_threads());
  CHECK(rate_key(DeviceId::cpu(), machine) == cpu);
  CHECK(rate_key(DeviceId::cpu(1), machine) == cpu);
}

TEST_CASE("the cache lies where the XDG specification says") {
  const auto path = [](const char* cache, const char* home) {
    cache ? ::setenv("XDG_CACHE_HOME", cache, 1) : ::unsetenv("XDG_CACHE_HOME");
    home ? ::setenv("HOME", home, 1) : ::unsetenv("HOME");
    return speed_cache_path();
  };
  const std::optional<std::string> home =
      std::getenv("HOME") ? std::optional<std::string>(std::getenv("HOME")) : std::nullopt;
  CHECK(path("/c", "/h") == "/c/mgpu-render/speeds.json");
  CHECK(path(nullptr, "/h") == "/h/.cache/mgpu-render/speeds.json");
  CHECK(path("", "/h") == "/h/.cache/mgpu-render/speeds.json");
  CHECK(path("relative", "/h") == "/h/.cache/mgpu-render/speeds.json");
  CHECK(path(nullptr, nullptr) == "");
  if (home) ::setenv("HOME", home->c_str(), 1);
}

TEST_CASE("what is saved is loaded; what cannot be read or written is said") {
  const test::Folder folder;
  const std::string path = folder.path("deep/er/speeds.json");
  CHECK(load_rates(path).note == "");  // not there yet
  CHECK(load_rates("").rates.empty());
  const Rates rates = {{"a", 6.25e14}, {"b, \"x\"", 1.5}};
  CHECK(save_rates(path, rates) == "");
  CHECK(load_rates(path).rates == rates);
  const DriverBytes driver_bytes = {{"a", std::uint64_t{900} << 20}};
  CHECK(save_rates(path, rates, driver_bytes) == "");
  CHECK(load_rates(path).rates == rates);
  CHECK(load_rates(path).driver_bytes == driver_bytes);
  folder.write("old.json", "{\"version\": 1, \"rates\": {\"a\": 2.0}}");  // before driver bytes were kept
  CHECK(load_rates(folder.path("old.json")).rates == Rates{{"a", 2.0}});
  CHECK(load_rates(folder.path("old.json")).note == "");
  for (const char* text : {"", "{", "[]", "{\"version\": 2, \"rates\": {}}", "{\"version\": \"1\", \"rates\": {}}",
                           "{\"version\": 1, \"rates\": [1]}", "{\"version\": 1, \"rates\": {\"a\": \"fast\"}}",
                           "{\"version\": 1, \"rates\": {\"a\": 0}}", "{\"version\": 1}",
                           "{\"version\": 1, \"rates\": {}, \"driver_bytes\": 5}",
                           "{\"version\": 1, \"rates\": {}, \"driver_bytes\": {\"a\": -1}}"}) {
    CAPTURE(text);
    folder.write("bad.json", text);
    CHECK(load_rates(folder.path("bad.json")).rates.empty());
    CHECK(load_rates(folder.path("bad.json")).note ==
          folder.path("bad.json") + ": holds no speeds that can be read: it will be written anew");
  }
  CHECK(save_rates("", rates) == "the devices' speeds are not kept: neither XDG_CACHE_HOME nor HOME is set");
  CHECK(save_rates(folder.path("bad.json/speeds.json"), rates) ==
        fmt::format("the devices' speeds are not kept: {}: cannot be written: Not a directory",
                    folder.path("bad.json/speeds.json")));
}

TEST_CASE("devices of one kind are equally fast and not probed") {
  Probing probing;
  for (const auto& [names, ids] : {std::pair<std::vector<std::string>, std::string>{{"fast", "fast"}, "[0, 1]"},
                                   {{"fast", "slow"}, "[1]"},
                                   {{}, "[cpu:0, cpu:1, cpu]"}}) {
    Machine machine = machine_of(names);
    for (const double speed : speeds_of(probed_devices(job_with("gpu_ids: " + ids), machine, probing.source())))
      CHECK(speed == 1.0);
  }
  CHECK(probing.probed.empty());
  CHECK(text_of(probing.source().cache_file) == "");
}

TEST_CASE("devices of several kinds are probed once for each kind, and remembered") {
  Probing probing;
  Machine machine = machine_of({"slow", "fast", "slow"});
  const Job job = job_with("gpu_ids: [0, 1, 2, cpu]");
  CHECK(speeds_of(remembered_devices(job, machine, probing.source())) == std::vector<double>{1.0, 1.0, 1.0, kCpuSpeed});
  CHECK(speeds_of(probed_devices(job, machine, probing.source())) == std::vector<double>{0.4, 1.0, 0.4, 0.01});
  CHECK(probing.probed == std::vector<std::string>{"cpu", "cuda:1", "cuda:0"});

  Machine again = machine_of({"slow", "fast", "slow"});
  const ChosenDevices remembered = remembered_devices(job, again, probing.source());
  CHECK(speeds_of(remembered) == std::vector<double>{0.4, 1.0, 0.4, 0.01});
  CHECK(remembered.unprobed.empty());
  CHECK(probing.probed.size() == 3);

  // Without the fast one the slow ones are the fastest; a new driver makes all rates unknown.
  CHECK(speeds_of(probed_devices(job_with("gpu_ids: [0, cpu]"), again, probing.source())) ==
        std::vector<double>{1.0, 0.01});
  again.survey.driver_version = 13010;
  CHECK(remembered_devices(job, again, probing.source()).unprobed.size() == 3);
  CHECK(probing.notes.empty());
}

TEST_CASE("what the job says wins over what is supposed, and that over what was probed") {
  Probing probing;
  Machine machine = machine_of({"slow", "fast"});
  machine.speed = {{DeviceId::cuda(0), 0.7}, {DeviceId::cuda(1), 0.9}};
  const auto speeds = [&](const std::string& lines) {
    return speeds_of(probed_devices(job_with("gpu_ids: [0, 1, cpu]\n" + lines), machine, probing.source()));
  };
  CHECK(speeds("speed: {cuda:1: 0.5, cpu: 0.03}") == std::vector<double>{0.7, 0.5, 0.03});
  CHECK(probing.probed.empty());  // nothing is left to ask
  CHECK(speeds("speed: {cuda:1: 0.5}") == std::vector<double>{0.7, 0.5, 0.01});
  CHECK(probing.probed.size() == 3);
}

TEST_CASE("a cache that cannot be read or written, and a probe that fails, are notes") {
  Probing probing;
  const Job job = job_with("gpu_ids: [0, 1]");
  SpeedSource source = probing.source();
  source.cache_file = probing.folder.path("speeds.json");
  probing.folder.write("speeds.json", "{");
  Machine machine = machine_of({"slow", "fast"});
  CHECK(speeds_of(probed_devices(job, machine, source)) == std::vector<double>{0.4, 1.0});
  REQUIRE(probing.notes.size() == 1);
  CHECK(probing.notes[0] == source.cache_file + ": holds no speeds that can be read: it will be written anew");
  CHECK(load_rates(source.cache_file).rates.size() == 2);

  probing.notes.clear();
  source.cache_file.clear();
  machine = machine_of({"slow", "fast"});
  CHECK(speeds_of(probed_devices(job, machine, source)) == std::vector<double>{0.4, 1.0});
  CHECK(probing.notes ==
        std::vector<std::string>{"the devices' speeds are not kept: neither XDG_CACHE_HOME nor HOME is set"});

  probing.notes.clear();
  source.probe = [](const DeviceId&, const Machine&) -> double { throw Error(Exit::ImageFailed, Mark{}, "no luck"); };
  machine = machine_of({"slow", "fast"});
  CHECK(speeds_of(probed_devices(job, machine, source)) == std::vector<double>{1.0, 1.0});
  CHECK(probing.notes ==
        std::vector<std::string>{"the speed of cuda:1 cannot be probed: no luck: give it with \"speed\" in the job"});
}

TEST_CASE("the CPU is probed") {
  const double rate = probe_device(DeviceId::cpu(), machine_of({}));
  CHECK(rate > 1e8);
  CHECK(rate < 1e15);
}

TEST_SUITE_END();
