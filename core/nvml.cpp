#include "core/nvml.h"

#include <dlfcn.h>

#include <vector>

namespace mgpu {
namespace {

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

/// Nothing where the library is missing or does not start. It stays loaded until the process ends.
std::optional<NvmlTable> load() {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return std::nullopt;
  NvmlTable table;
  find(library, "nvmlInit_v2", table.init);
  find(library, "nvmlDeviceGetHandleByUUID", table.device_by_uuid);
  find(library, "nvmlDeviceGetMemoryInfo", table.memory);
  find(library, "nvmlDeviceGetComputeRunningProcesses_v3", table.processes);
  if (!table.init || table.init() != NvmlTable::kSuccess) return std::nullopt;
  return table;
}

}  // namespace

const Nvml* Nvml::of_system() {
  static const std::optional<NvmlTable> table = load();
  static const Nvml* const nvml = table ? new Nvml(*table) : nullptr;
  return nvml;
}

std::optional<NvmlTable::Device> Nvml::device(const std::string& uuid) const {
  NvmlTable::Device out = nullptr;
  if (!table_.device_by_uuid || table_.device_by_uuid(uuid.c_str(), &out) != NvmlTable::kSuccess) return std::nullopt;
  return out;
}

std::optional<Nvml::Memory> Nvml::memory(const std::string& uuid) const {
  const auto gpu = device(uuid);
  NvmlTable::Memory answer{};
  if (!gpu || !table_.memory || table_.memory(*gpu, &answer) != NvmlTable::kSuccess) return std::nullopt;
  return Memory{answer.total, answer.free, answer.used};
}

std::optional<std::uint64_t> Nvml::process_bytes(const std::string& uuid, unsigned int pid) const {
  const auto gpu = device(uuid);
  if (!gpu || !table_.processes) return std::nullopt;
  std::vector<NvmlTable::Process> all(16);
  int answer = NvmlTable::kInsufficientSize;
  for (int tries = 0; tries < 4 && answer == NvmlTable::kInsufficientSize; ++tries) {
    if (tries > 0) all.resize(2 * all.size());  // others may start meanwhile: more room than it says
    auto count = static_cast<unsigned int>(all.size());
    answer = table_.processes(*gpu, &count, all.data());
    if (answer == NvmlTable::kSuccess) {
      all.resize(count);
    } else if (count > all.size()) {
      all.resize(count);
    }
  }
  if (answer != NvmlTable::kSuccess) return std::nullopt;
  std::uint64_t sum = 0;
  bool found = false;
  for (const NvmlTable::Process& process : all) {
    if (process.pid != pid) continue;
    if (process.used_bytes == ~0ULL) return std::nullopt;
    found = true;
    sum += process.used_bytes;
  }
  return found ? std::optional(sum) : std::nullopt;
}

}  // namespace mgpu
