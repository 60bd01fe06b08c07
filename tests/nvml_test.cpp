#include "core/nvml.h"

#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/devices.h"
#include "tests/byte_sizes.h"

using namespace mgpu;

TEST_SUITE_BEGIN("nvml");

namespace {

using test::kGiB;
constexpr unsigned kOurs = 4242;

/// GPUs as a made-up NVML describes them. A table of functions knows no object: theirs stands here.
struct FakeGpu {
  std::string uuid;
  NvmlTable::Memory memory{};
  std::vector<NvmlTable::Process> processes = {};
  int answer = NvmlTable::kSuccess;
};
std::vector<FakeGpu> gpus;
int calls_for_processes = 0;

FakeGpu& gpu_of(NvmlTable::Device device) {
  return gpus[reinterpret_cast<std::uintptr_t>(device) - 1];
}

int device_by_uuid(const char* uuid, NvmlTable::Device* device) {
  for (std::size_t i = 0; i < gpus.size(); ++i) {
    if (gpus[i].uuid != uuid) continue;
    *device = reinterpret_cast<NvmlTable::Device>(i + 1);
    return NvmlTable::kSuccess;
  }
  return 6;  // NVML_ERROR_NOT_FOUND
}

int memory_of(NvmlTable::Device device, NvmlTable::Memory* memory) {
  *memory = gpu_of(device).memory;
  return gpu_of(device).answer;
}

int processes_of(NvmlTable::Device device, unsigned* count, NvmlTable::Process* all) {
  ++calls_for_processes;
  const auto& processes = gpu_of(device).processes;
  const unsigned room = *count;
  *count = static_cast<unsigned>(processes.size());
  if (processes.size() > room) return NvmlTable::kInsufficientSize;
  if (!processes.empty()) std::memcpy(all, processes.data(), processes.size() * sizeof(processes[0]));
  return gpu_of(device).answer;
}

Nvml fake() {
  return Nvml({nullptr, device_by_uuid, memory_of, processes_of});
}

DeviceSurvey survey_of(const std::vector<std::string>& uuids) {
  DeviceSurvey out;
  for (std::size_t i = 0; i < uuids.size(); ++i) {
    out.gpus.push_back({DeviceId::cuda(static_cast<int>(i)), "GPU", uuids[i], 9, 0, 24 * kGiB, 0, ""});
    out.gpus.back().free_is_known = false;
  }
  return out;
}

}  // namespace

TEST_CASE("free memory is asked for by UUID: in whatever order and number CUDA_VISIBLE_DEVICES shows the GPUs") {
  gpus = {{"GPU-aa", {24 * kGiB, 20 * kGiB, 4 * kGiB}}, {"GPU-bb", {24 * kGiB, 3 * kGiB, 21 * kGiB}}};
  DeviceSurvey survey = survey_of({"GPU-bb", "GPU-aa", "GPU-cc"});
  const Nvml nvml = fake();
  ask_free_memory(survey, &nvml);
  CHECK(survey.gpus[0].free_bytes == 3 * kGiB);
  CHECK(survey.gpus[1].free_bytes == 20 * kGiB);
  CHECK(survey.gpus[0].free_is_known);
  CHECK_FALSE(survey.gpus[2].free_is_known);  // NVML has not heard of it
}

TEST_CASE("an instance of a divided GPU has a UUID and memory of its own") {
  gpus = {{"MIG-aa", {24 * kGiB, 9 * kGiB, 15 * kGiB}}};
  DeviceSurvey survey = survey_of({"GPU-aa"});
  const Nvml nvml = fake();
  ask_free_memory(survey, &nvml);
  CHECK(survey.gpus[0].uuid == "MIG-aa");
  CHECK(survey.gpus[0].free_bytes == 9 * kGiB);
  // The whole GPU's numbers are not the instance's.
  gpus = {{"GPU-aa", {80 * kGiB, 60 * kGiB, 20 * kGiB}}};
  survey = survey_of({"GPU-aa"});
  ask_free_memory(survey, &nvml);
  CHECK_FALSE(survey.gpus[0].free_is_known);
}

TEST_CASE("NVML counts what the driver keeps for itself: no GPU has more free than CUDA can give") {
  gpus = {{"GPU-aa", {25 * kGiB, 25 * kGiB, 0}}};
  DeviceSurvey survey = survey_of({"GPU-aa"});
  const Nvml nvml = fake();
  ask_free_memory(survey, &nvml);
  CHECK(survey.gpus[0].free_bytes == 24 * kGiB);
}

TEST_CASE("without NVML, or where it does not answer, free memory is not known, and said of no GPU") {
  gpus = {{"GPU-aa", {24 * kGiB, 20 * kGiB, 4 * kGiB}}};
  gpus[0].answer = 999;  // NVML_ERROR_UNKNOWN
  const Nvml broken = fake(), lacks_functions{NvmlTable()};
  const Nvml* tables[] = {nullptr, &broken, &lacks_functions};
  for (const Nvml* nvml : tables) {
    DeviceSurvey survey = survey_of({"GPU-aa"});
    survey.driver_version = survey.runtime_version = 13000;
    ask_free_memory(survey, nvml);
    CHECK_FALSE(survey.gpus[0].free_is_known);
    CHECK(device_warnings(survey).empty());
    if (nvml) CHECK_FALSE(nvml->process_bytes("GPU-aa", kOurs).has_value());
  }
}

TEST_CASE("a GPU that does not answer is not asked") {
  gpus = {{"GPU-aa", {24 * kGiB, 20 * kGiB, 4 * kGiB}}};
  DeviceSurvey survey = survey_of({""});
  survey.gpus[0].fault = "unspecified launch failure";
  const Nvml nvml = fake();
  ask_free_memory(survey, &nvml);
  CHECK_FALSE(survey.gpus[0].free_is_known);
}

TEST_CASE("a process's bytes are its own, however many others there are") {
  gpus = {{"GPU-aa"}};
  for (unsigned pid = 1; pid <= 100; ++pid) gpus[0].processes.push_back({pid, kGiB, 0, 0});
  const Nvml nvml = fake();
  calls_for_processes = 0;
  CHECK_FALSE(nvml.process_bytes("GPU-aa", kOurs).has_value());
  CHECK(calls_for_processes == 2);  // there was room for 16
  gpus[0].processes.push_back({kOurs, 7 * kGiB, 0, 0});
  CHECK(nvml.process_bytes("GPU-aa", kOurs) == 7 * kGiB);
  gpus[0].processes.back().used_bytes = ~0ULL;  // as WSL says it
  CHECK_FALSE(nvml.process_bytes("GPU-aa", kOurs).has_value());
  CHECK_FALSE(nvml.process_bytes("GPU-bb", kOurs).has_value());
}

TEST_SUITE_END();
