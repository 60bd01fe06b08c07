#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/device_id.h"

namespace mgpu {

/// One GPU as the driver describes it.
struct GpuInfo {
  DeviceId id;
  std::string name;
  std::string uuid;  ///< "GPU-0f3a...", as nvidia-smi prints it
  int major = 0;     ///< compute capability
  int minor = 0;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::string fault;  ///< why the driver could not answer for this GPU; empty when it did
  bool free_is_known = true;
};

/// What the machine has. A plain value, so that what is said about it is tested without a GPU.
struct DeviceSurvey {
  int driver_version = 0;   ///< highest CUDA version the driver serves, e.g. 13000; 0: no driver
  int runtime_version = 0;  ///< CUDA version that this program was built for
  std::string failure;      ///< why GPUs could not be counted; empty when they were
  bool hidden = false;      ///< CUDA_VISIBLE_DEVICES is set and leaves no GPU
  std::vector<GpuInfo> gpus;
  std::uint64_t host_total_bytes = 0;  ///< main memory, or the lowest limit of cgroup and process
  std::uint64_t host_free_bytes = 0;
  std::string host_limit;           ///< what the limit is, where it is below the machine's memory
  std::string host_free_limit;      ///< the limit that host_free_bytes are what is left of; empty: none
  std::uint64_t process_bytes = 0;  ///< program_bytes(): this program and its libraries
  int host_threads = 0;             ///< host_threads()
};

class Nvml;

/// Asks the driver, and NVML for what is free, so that no GPU gets a context. Where NVML does not know a GPU, what is
/// free there is not known. Never throws: what went wrong stands in the survey.
DeviceSurvey survey_devices();

/// Asks NVML for the free memory of a survey's GPUs: they have UUIDs, so that it does not matter which of them
/// CUDA_VISIBLE_DEVICES shows, and in which order. An instance of a divided GPU (MIG) gets its own UUID. Without NVML
/// (null) nothing is known.
void ask_free_memory(DeviceSurvey& survey, const Nvml* nvml);

/// Asks CUDA for what is free on a GPU of which that is not known: opens a context there, which takes of it.
void ask_free_memory(GpuInfo& gpu);

/// The name by which NVML knows a GPU of this process; "" where it does not.
std::string nvml_uuid(int gpu, const Nvml& nvml);

/// Lowest compute capability that our kernels are built for, times ten.
inline constexpr int lowest_capability = 75;

/// Why `gpu` cannot be used ("too old ..."), or empty.
std::string unusable_reason(const GpuInfo& gpu);

/// What keeps the machine's GPUs from being used or will disappoint, one plain sentence each: no driver, a driver too
/// old, a GPU too old, memory in use by others. Empty when all is well.
std::vector<std::string> device_warnings(const DeviceSurvey& survey);

/// The same as a paragraph of text for people: one line a device, then the warnings.
std::string describe_devices(const DeviceSurvey& survey);

/// Every device name a job may use here, for messages: "cuda:0, cuda:1, cpu".
std::string device_list(const DeviceSurvey& survey);

}  // namespace mgpu
