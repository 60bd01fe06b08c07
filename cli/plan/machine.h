#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "cli/plan/speed_cache.h"
#include "core/devices.h"

namespace mgpu {

/// What a machine has, or is supposed to have.
struct Machine {
  DeviceSurvey survey;
  std::map<DeviceId, double> speed = {};                ///< supposed ones; a job's own win
  std::map<DeviceId, std::uint64_t> virtual_cpus = {};  ///< bytes of supposed cpu:N; others share main memory
  Rates rates = {};                                     ///< of earlier probes
  DriverBytes driver_bytes = {};                        ///< of earlier runs
};

/// Whether the machine has a device; one that is not supposed has any virtual CPU.
bool is_there(const DeviceId& id, const Machine& machine);

/// A GPU that is there.
const GpuInfo& gpu_of(const DeviceId& id, const Machine& machine);

/// "cuda:0, cpu": all that it has.
std::string list_of(const Machine& machine);

/// Whether a device computes in bf16 by itself.
bool has_bf16(const DeviceId& id, const Machine& machine);

/// What the rate of a device of the machine is remembered by; equal for equal devices.
std::string rate_key(const DeviceId& id, const Machine& machine);

/// The measured driver bytes of a GPU; nothing where no run has measured them yet, and for a CPU device.
std::optional<std::uint64_t> known_driver_bytes(const DeviceId& id, const Machine& machine);
/// What they are remembered by.
std::string driver_key(const DeviceId& id, const Machine& machine);

/// The machine of `plan --devices`: "cuda:0=8GB,cuda:1=24GB@0.5,cpu=16GB", sizes in powers of 1024, speed 1 if absent.
/// Its GPUs have bf16. Throws Error (exit 2) naming what it does not understand.
Machine suppose_machine(std::string_view devices);

}  // namespace mgpu
