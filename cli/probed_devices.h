#pragma once

#include <functional>
#include <string>

#include "cli/job_devices.h"
#include "cli/speeds.h"

namespace mgpu {

/// Measures a device's rate, in the narrowest type that it computes in by itself. Throws what LibTorch throws.
double probe_device(const DeviceId& id, const Machine& machine);

/// Where speeds come from that nobody has given, and who is told of what goes wrong.
struct SpeedSource {
  std::function<void(const std::string&)> note;
  std::string cache_file = speed_cache_path();  ///< "": none
  std::function<double(const DeviceId&, const Machine&)> probe = probe_device;
};

/// job_devices() with the rates of earlier probes, read into the machine where they are needed. No device is touched.
JobDevices remembered_devices(const Job& job, Machine& machine, const SpeedSource& source);

/// The same, for a job that is to be rendered: what is needed and not known is probed, once for each kind of device,
/// and kept. Where a probe fails the devices keep the speeds of unprobed ones.
JobDevices probed_devices(const Job& job, Machine& machine, const SpeedSource& source);

}  // namespace mgpu
