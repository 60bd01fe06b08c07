#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mgpu {

/// Functions of NVIDIA's management library (NVML), which comes with the driver: they answer without opening a CUDA
/// context. Declared here, as nvml.h has them, so that nothing links to the library; null where it lacks one.
struct NvmlTable {
  using Device = struct NvmlDevice*;
  struct Memory {  // nvmlMemory_t
    unsigned long long total, free, used;
  };
  struct Process {  // nvmlProcessInfo_v2_t
    unsigned int pid;
    unsigned long long used_bytes;  ///< all ones: not known
    unsigned int gpu_instance, compute_instance;
  };
  static constexpr int kSuccess = 0, kInsufficientSize = 7;  // nvmlReturn_t

  int (*init)() = nullptr;                                                // nvmlInit_v2
  int (*device_by_uuid)(const char* uuid, Device* device) = nullptr;      // nvmlDeviceGetHandleByUUID
  int (*memory)(Device device, Memory* memory) = nullptr;                 // nvmlDeviceGetMemoryInfo
  int (*processes)(Device, unsigned int* count, Process* all) = nullptr;  // nvmlDeviceGetComputeRunningProcesses_v3
};

/// What NVML says of GPUs, which it knows by UUID ("GPU-0f3a..." or, for an instance of a divided GPU, "MIG-..."). The
/// library is initialised once and never shut down. For several threads at once.
class Nvml {
 public:
  explicit Nvml(const NvmlTable& table) : table_(table) {}

  /// The system's library, or null where there is none that starts.
  static const Nvml* of_system();

  struct Memory {
    std::uint64_t total_bytes = 0;
    std::uint64_t free_bytes = 0;
    std::uint64_t used_bytes = 0;  ///< by every program
  };
  /// Nothing where NVML does not know the GPU.
  std::optional<Memory> memory(const std::string& uuid) const;

  /// What a process holds of a GPU: context, modules and allocations. Nothing where it is not among the processes that
  /// NVML lists (in a container it may not be), or its bytes are not known (as in WSL).
  std::optional<std::uint64_t> process_bytes(const std::string& uuid, unsigned int pid) const;

 private:
  std::optional<NvmlTable::Device> device(const std::string& uuid) const;

  NvmlTable table_;
};

}  // namespace mgpu
