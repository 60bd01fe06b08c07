#pragma once

#include <functional>
#include <string>

#include "cli/plan/chosen_devices.h"
#include "cli/plan/speed_cache.h"

namespace mgpu {

/// Measures a device's rate, in the narrowest type that it computes in by itself. Throws what LibTorch throws.
double probe_device(const DeviceId& id, const Machine& machine);

/// Measures what the driver takes of a GPU: probe_driver_bytes(). Throws what LibTorch throws.
std::uint64_t measure_driver(const DeviceId& id, const Machine& machine);

/// Where speeds and driver bytes come from that nobody has given, and who is told of what goes wrong.
struct SpeedSource {
  std::function<void(const std::string&)> note;
  std::string cache_file = speed_cache_path();  ///< "": none
  std::function<double(const DeviceId&, const Machine&)> probe = probe_device;
  std::function<std::uint64_t(const DeviceId&, const Machine&)> measure = measure_driver;
  /// Asks for a GPU's free memory that the survey does not know; opens a context there.
  std::function<void(GpuInfo&)> ask_free = [](GpuInfo& gpu) { ask_free_memory(gpu); };
};

/// job_devices() with the rates of earlier probes and the driver bytes of earlier runs, read into the machine where
/// they are needed. No GPU is touched, but one of the job whose free memory only a context can tell.
ChosenDevices remembered_devices(const Job& job, Machine& machine, const SpeedSource& source);

/// The same, for a job that is to be rendered: what is needed and not known is probed, once for each kind of device,
/// and kept. Where a probe fails the devices keep the speeds of unprobed ones, and kAssumedDriverBytes.
ChosenDevices probed_devices(const Job& job, Machine& machine, const SpeedSource& source);

/// Keeps what the driver took of a GPU at the end of a run, with a margin, where it is more than was counted. `bytes`
/// 0: not known.
void learn_driver_bytes(const DeviceId& id, std::uint64_t bytes, Machine& machine, const SpeedSource& source);

}  // namespace mgpu
