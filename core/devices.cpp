#include "core/devices.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>

#include "core/host_limits.h"
#include "core/nvml.h"
#include "core/own_memory.h"
#include "core/proc.h"

namespace mgpu {
namespace {

constexpr double gib = 1024.0 * 1024.0 * 1024.0;

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// Without "GPU-" or "MIG-".
std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text;
  for (std::size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

/// What NVML calls a GPU of that number and size; "" where it has none. The GPU that an instance of a divided one
/// belongs to, which some drivers name instead, is larger.
std::string known_uuid(const Nvml& nvml, const std::string& number, std::uint64_t total_bytes) {
  for (const char* kind : {"GPU-", "MIG-"}) {
    const auto memory = nvml.memory(kind + number);
    if (memory && memory->total_bytes <= total_bytes + total_bytes / 4) return kind + number;
  }
  return {};
}

GpuInfo ask_gpu(int index) {
  GpuInfo gpu;
  gpu.id = DeviceId::cuda(index);
  cudaDeviceProp properties{};
  const cudaError_t fault = cudaGetDeviceProperties(&properties, index);  // opens no context
  if (fault == cudaSuccess) {
    gpu.name = properties.name;
    gpu.uuid = "GPU-" + uuid_text(properties.uuid);
    gpu.major = properties.major;
    gpu.minor = properties.minor;
    gpu.total_bytes = properties.totalGlobalMem;
  }
  gpu.free_is_known = false;
  if (fault != cudaSuccess) {
    gpu.fault = cudaGetErrorString(fault);
    cudaGetLastError();
  }
  return gpu;
}

void ask_host(DeviceSurvey& survey) {
  const HostMemory memory = host_memory(resource_limits());
  survey.host_total_bytes = memory.total_bytes;
  survey.host_free_bytes = memory.free_bytes;
  survey.host_limit = memory.source;
  survey.host_free_limit = memory.free_source;
  survey.process_bytes = program_bytes();
  survey.host_threads = host_threads();
}

}  // namespace

DeviceSurvey survey_devices() {
  DeviceSurvey survey;
  cudaDriverGetVersion(&survey.driver_version);
  cudaRuntimeGetVersion(&survey.runtime_version);
  int count = 0;
  const cudaError_t fault = cudaGetDeviceCount(&count);
  if (fault != cudaSuccess && fault != cudaErrorNoDevice) survey.failure = cudaGetErrorString(fault);
  if (fault != cudaSuccess) cudaGetLastError();
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  survey.hidden = visible != nullptr && fault == cudaErrorNoDevice;
  for (int i = 0; fault == cudaSuccess && i < count; ++i) survey.gpus.push_back(ask_gpu(i));
  if (!survey.gpus.empty()) {
    ask_free_memory(survey, Nvml::of_system());
    note_gpus();
  }
  ask_host(survey);
  return survey;
}

void ask_free_memory(DeviceSurvey& survey, const Nvml* nvml) {
  for (GpuInfo& gpu : survey.gpus) {
    if (!gpu.fault.empty()) continue;
    constexpr std::size_t kKindLength = 4;  // "GPU-"
    const std::string uuid = nvml ? known_uuid(*nvml, gpu.uuid.substr(kKindLength), gpu.total_bytes) : "";
    const auto memory = uuid.empty() ? std::nullopt : nvml->memory(uuid);
    gpu.free_is_known = memory.has_value();
    if (!memory) continue;
    gpu.uuid = uuid;
    gpu.free_bytes = std::min(memory->free_bytes, gpu.total_bytes);
  }
}

void ask_free_memory(GpuInfo& gpu) {
  if (gpu.free_is_known || !gpu.fault.empty()) return;
  gpu.free_is_known = true;
  try {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(gpu.id.index));
    std::size_t free_bytes = 0, total_bytes = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    gpu.free_bytes = free_bytes;
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    gpu.fault = text.substr(0, text.find('\n'));
  }
}

std::string nvml_uuid(int gpu, const Nvml& nvml) {
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, gpu) == cudaSuccess)
    return known_uuid(nvml, uuid_text(properties.uuid), properties.totalGlobalMem);
  cudaGetLastError();
  return {};
}

std::string unusable_reason(const GpuInfo& gpu) {
  if (!gpu.fault.empty()) return "does not answer: " + gpu.fault;
  if (gpu.major * 10 + gpu.minor < lowest_capability)
    return fmt::format("too old: compute capability {}.{}, and our kernels need {}.{}", gpu.major, gpu.minor,
                       lowest_capability / 10, lowest_capability % 10);
  return {};
}

std::vector<std::string> device_warnings(const DeviceSurvey& survey) {
  std::vector<std::string> warnings;
  if (survey.hidden) {
    warnings.emplace_back("CUDA_VISIBLE_DEVICES hides every GPU: jobs run on the CPU");
  } else if (survey.driver_version == 0) {
    warnings.emplace_back("no NVIDIA driver: jobs run on the CPU");
  } else if (survey.driver_version / 1000 < survey.runtime_version / 1000) {
    warnings.push_back(
        fmt::format("the NVIDIA driver is too old: it serves CUDA {}, and this program needs {}: update the driver",
                    version_text(survey.driver_version), version_text(survey.runtime_version)));
  } else if (!survey.failure.empty()) {
    warnings.push_back(fmt::format("the NVIDIA driver does not answer: {}", survey.failure));
  } else if (survey.gpus.empty()) {
    warnings.emplace_back("no GPU: jobs run on the CPU");
  }
  for (const GpuInfo& gpu : survey.gpus) {
    const std::string reason = unusable_reason(gpu);
    if (!reason.empty()) {
      warnings.push_back(fmt::format("{} ({}) cannot be used: {}", gpu.id.to_string(), gpu.name, reason));
    } else if (gpu.free_is_known && gpu.free_bytes < gpu.total_bytes / 10 * 9) {
      warnings.push_back(fmt::format("{} is busy: other programs hold {:.1f} of its {:.1f} GiB; nvidia-smi names them",
                                     gpu.id.to_string(), static_cast<double>(gpu.total_bytes - gpu.free_bytes) / gib,
                                     static_cast<double>(gpu.total_bytes) / gib));
    }
  }
  return warnings;
}

std::string describe_devices(const DeviceSurvey& survey) {
  std::string text;
  for (const GpuInfo& gpu : survey.gpus)
    text += fmt::format("{}  {}  {}  compute capability {}.{}  {:.1f} GiB, {:.1f} free\n", gpu.id.to_string(), gpu.name,
                        gpu.uuid, gpu.major, gpu.minor, static_cast<double>(gpu.total_bytes) / gib,
                        static_cast<double>(gpu.free_bytes) / gib);
  text +=
      fmt::format("cpu  {} threads  {:.1f} GiB, {:.1f} free{}\n", survey.host_threads,
                  static_cast<double>(survey.host_total_bytes) / gib, static_cast<double>(survey.host_free_bytes) / gib,
                  survey.host_limit.empty() ? "" : fmt::format(" (limited by {})", survey.host_limit));
  for (const std::string& warning : device_warnings(survey)) text += warning + "\n";
  return text;
}

std::string device_list(const DeviceSurvey& survey) {
  std::vector<std::string> names;
  for (const GpuInfo& gpu : survey.gpus) names.push_back(gpu.id.to_string());
  names.push_back("cpu");
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace mgpu
