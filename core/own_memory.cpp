#include "core/own_memory.h"

#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "core/devices.h"
#include "core/nvml.h"

namespace mgpu {
namespace {

/// Of every program, as CUDA says it; opens a context.
std::optional<std::uint64_t> used_bytes(int gpu) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(gpu));
  std::size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
    cudaGetLastError();
    return std::nullopt;
  }
  return total - free;
}

/// "" where NVML is missing or does not know the GPU.
std::string uuid_for_nvml(int gpu) {
  const Nvml* nvml = Nvml::of_system();
  return nvml ? nvml_uuid(gpu, *nvml) : "";
}

/// What a GPU is asked with: NVML where it knows the GPU, else CUDA.
DriverShare::Source source_of(int gpu, const std::string& uuid) {
  const Nvml* nvml = Nvml::of_system();
  if (uuid.empty()) return {[] { return std::optional<std::uint64_t>(); }, [gpu] { return used_bytes(gpu); }};
  const auto used = [nvml, uuid]() -> std::optional<std::uint64_t> {
    const auto memory = nvml->memory(uuid);
    return memory ? std::optional(memory->used_bytes) : std::nullopt;
  };
  return {[nvml, uuid] { return nvml->process_bytes(uuid, static_cast<unsigned int>(getpid())); }, used};
}

/// Never destroyed: asked until the program ends.
struct Shares {
  std::mutex mutex;
  std::map<int, std::unique_ptr<const DriverShare>> of_gpu;

  static Shares& all() {
    static auto& shares = *new Shares;
    return shares;
  }
};

std::uint64_t less(std::uint64_t from, std::uint64_t amount) {
  return from > amount ? from - amount : 0;
}

}  // namespace

DriverShare::DriverShare(Source source, bool has_context, std::uint64_t reserved) : source_(std::move(source)) {
  others_ = source_.used().value_or(0);
  if (has_context) {
    others_ = less(others_, reserved + kAssumedDriverBytes);
  } else {
    // A container numbers its processes apart from the machine's, by which NVML may go.
    lists_us_ = !source_.own().has_value();
  }
}

std::uint64_t DriverShare::bytes(std::uint64_t reserved) const {
  if (const auto own = lists_us_ ? source_.own() : std::nullopt; own && *own >= reserved) return *own - reserved;
  return std::min(less(source_.used().value_or(0), others_ + reserved), kMostPlausible);
}

const DriverShare& driver_share(int gpu, std::uint64_t reserved) {
  Shares& shares = Shares::all();
  const std::lock_guard lock(shares.mutex);
  std::unique_ptr<const DriverShare>& share = shares.of_gpu[gpu];
  if (!share) {
    const std::string uuid = uuid_for_nvml(gpu);
    const bool has_context = uuid.empty() || c10::cuda::hasPrimaryContext(static_cast<c10::DeviceIndex>(gpu));
    share = std::make_unique<const DriverShare>(source_of(gpu, uuid), has_context, reserved);
  }
  return *share;
}

void note_gpus() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return;
  }
  for (int gpu = 0; gpu < count; ++gpu)
    if (!c10::cuda::hasPrimaryContext(static_cast<c10::DeviceIndex>(gpu)) && !uuid_for_nvml(gpu).empty())
      driver_share(gpu, 0);
}

}  // namespace mgpu
