#include "core/devices.h"

#include <cuda_runtime_api.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>

#include "core/host_limits.h"
#include "core/proc.h"

namespace mgpu {
namespace {

constexpr double gib = 1024.0 * 1024.0 * 1024.0;

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (std::size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

GpuInfo ask_gpu(int index) {
  GpuInfo gpu;
  gpu.id = DeviceId::cuda(index);
  cudaDeviceProp properties{};
  cudaError_t fault = cudaGetDeviceProperties(&properties, index);
  if (fault == cudaSuccess) {
    gpu.name = properties.name;
    gpu.uuid = uuid_text(properties.uuid);
    gpu.major = properties.major;
    gpu.minor = properties.minor;
    gpu.total_bytes = properties.totalGlobalMem;
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    int before = 0;
    cudaGetDevice(&before);
    fault = cudaSetDevice(index);
    if (fault == cudaSuccess) fault = cudaMemGetInfo(&free_bytes, &total_bytes);
    cudaSetDevice(before);
    gpu.free_bytes = free_bytes;
  }
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
  ask_host(survey);
  return survey;
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
    warnings.push_back("CUDA_VISIBLE_DEVICES hides every GPU: jobs run on the CPU");
  } else if (survey.driver_version == 0) {
    warnings.push_back("no NVIDIA driver: jobs run on the CPU");
  } else if (survey.driver_version / 1000 < survey.runtime_version / 1000) {
    warnings.push_back(
        fmt::format("the NVIDIA driver is too old: it serves CUDA {}, and this program needs {}: update the driver",
                    version_text(survey.driver_version), version_text(survey.runtime_version)));
  } else if (!survey.failure.empty()) {
    warnings.push_back(fmt::format("the NVIDIA driver does not answer: {}", survey.failure));
  } else if (survey.gpus.empty()) {
    warnings.push_back("no GPU: jobs run on the CPU");
  }
  for (const GpuInfo& gpu : survey.gpus) {
    const std::string reason = unusable_reason(gpu);
    if (!reason.empty()) {
      warnings.push_back(fmt::format("{} ({}) cannot be used: {}", gpu.id.to_string(), gpu.name, reason));
    } else if (gpu.free_bytes < gpu.total_bytes / 10 * 9) {
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
