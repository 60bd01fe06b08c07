#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// The name of a device. `cuda:N` is a logical id after CUDA_VISIBLE_DEVICES; `cpu` is main memory and fp32 compute;
/// `cpu:N` is a virtual CPU device.
struct DeviceId {
  enum class Kind : std::uint8_t { Cuda, Cpu };
  Kind kind = Kind::Cpu;
  int index = -1;  ///< -1: plain "cpu"

  static DeviceId cuda(int index) { return {Kind::Cuda, index}; }
  static DeviceId cpu(int index = -1) { return {Kind::Cpu, index}; }
  bool is_cuda() const { return kind == Kind::Cuda; }
  std::string to_string() const;
  auto operator<=>(const DeviceId&) const = default;
};

/// The device that "cuda:1", "cpu", "cpu:0" or a bare number ("1" is cuda:1) names, or nothing.
std::optional<DeviceId> parse_device(std::string_view text);

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
};

/// What the machine has. A plain value, so that what is said about it is tested without a GPU.
struct DeviceSurvey {
  int driver_version = 0;   ///< highest CUDA version the driver serves, e.g. 13000; 0: no driver
  int runtime_version = 0;  ///< CUDA version that this program was built for
  std::string failure;      ///< why GPUs could not be counted; empty when they were
  bool hidden = false;      ///< CUDA_VISIBLE_DEVICES is set and leaves no GPU
  std::vector<GpuInfo> gpus;
  std::uint64_t host_total_bytes = 0;
  std::uint64_t host_free_bytes = 0;
  std::uint64_t process_bytes = 0;  ///< resident already: this program and its libraries
  int host_threads = 0;
};

/// Asks the driver. Never throws: what went wrong stands in the survey.
DeviceSurvey survey_devices();

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
