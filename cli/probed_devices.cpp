#include "cli/probed_devices.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <exception>

#include "cli/failure.h"
#include "core/speed_probe.h"

namespace mgpu {

double probe_device(const DeviceId& id, const Machine& machine) {
  if (!id.is_cuda()) return probe_rate(at::kCPU, at::kFloat);
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(id.index));
  return probe_rate(device, has_bf16(id, machine) ? at::kBFloat16 : at::kHalf);
}

JobDevices remembered_devices(const Job& job, Machine& machine, const SpeedSource& source) {
  JobDevices out = job_devices(job, machine);
  if (out.unprobed.empty() || !machine.rates.empty()) return out;
  KnownRates known = load_rates(source.cache_file);
  if (!known.note.empty()) source.note(known.note);
  machine.rates = std::move(known.rates);
  return machine.rates.empty() ? out : job_devices(job, machine);
}

JobDevices probed_devices(const Job& job, Machine& machine, const SpeedSource& source) {
  JobDevices out = remembered_devices(job, machine, source);
  if (out.unprobed.empty()) return out;
  for (const DeviceId& id : out.unprobed) {
    try {
      machine.rates[rate_key(id, machine)] = source.probe(id, machine);
    } catch (...) {
      source.note(fmt::format("the speed of {} cannot be probed: {}: give it with \"speed\" in the job", id.to_string(),
                              failure_of(std::current_exception(), id).why));
      return out;
    }
  }
  if (const std::string fault = save_rates(source.cache_file, machine.rates); !fault.empty()) source.note(fault);
  return job_devices(job, machine);
}

}  // namespace mgpu
