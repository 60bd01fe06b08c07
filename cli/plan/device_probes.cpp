#include "cli/plan/device_probes.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "cli/failure.h"
#include "core/driver_probe.h"
#include "core/own_memory.h"
#include "core/speed_probe.h"
#include "core/strings.h"

namespace mgpu {

double probe_device(const DeviceId& id, const Machine& machine) {
  if (!id.is_cuda()) return probe_rate(at::kCPU, at::kFloat);
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(id.index));
  return probe_rate(device, has_bf16(id, machine) ? at::kBFloat16 : at::kHalf);
}

std::uint64_t measure_driver(const DeviceId& id, const Machine& machine) {
  return probe_driver_bytes(id, has_bf16(id, machine));
}

namespace {

/// What stopped work on a device, in one line; to be asked where it was caught.
std::string reason(const DeviceId& id) {
  const std::string why = failure_of(std::current_exception(), id).why;
  return why.substr(0, why.find('\n'));
}

/// Whether the survey did not know what is free on one of these.
bool ask_free(const std::vector<DeviceRoom>& rooms, Machine& machine, const SpeedSource& source) {
  bool asked = false;
  for (const DeviceRoom& room : rooms) {
    const auto gpu = std::ranges::find(machine.survey.gpus, room.id, &GpuInfo::id);
    if (gpu == machine.survey.gpus.end() || gpu->free_is_known) continue;
    source.ask_free(*gpu);
    asked = true;
  }
  return asked;
}

void save(const Machine& machine, const SpeedSource& source) {
  const std::string fault = save_rates(source.cache_file, machine.rates, machine.driver_bytes);
  if (!fault.empty()) source.note(fault);
}

}  // namespace

ChosenDevices remembered_devices(const Job& job, Machine& machine, const SpeedSource& source) {
  ChosenDevices out = job_devices(job, machine);
  const bool rooms_asked = ask_free(out.rooms, machine, source), donors_asked = ask_free(out.donors, machine, source);
  if (rooms_asked || donors_asked) out = job_devices(job, machine);
  const bool lacks_rates = !out.unprobed.empty() && machine.rates.empty();
  const bool lacks_driver_bytes = !out.unmeasured.empty() && machine.driver_bytes.empty();
  if (!lacks_rates && !lacks_driver_bytes) return out;
  KnownRates known = load_rates(source.cache_file);
  if (!known.note.empty()) source.note(known.note);
  known.rates.merge(machine.rates);
  known.driver_bytes.merge(machine.driver_bytes);
  machine.rates = std::move(known.rates);
  machine.driver_bytes = std::move(known.driver_bytes);
  return job_devices(job, machine);
}

ChosenDevices probed_devices(const Job& job, Machine& machine, const SpeedSource& source) {
  ChosenDevices out = remembered_devices(job, machine, source);
  if (out.unprobed.empty() && out.unmeasured.empty()) return out;
  const std::size_t known = machine.driver_bytes.size();
  for (const DeviceId& id : out.unmeasured) {
    try {
      const std::uint64_t bytes = source.measure(id, machine);
      if (bytes > 0) machine.driver_bytes[driver_key(id, machine)] = bytes;
    } catch (...) {
      source.note(fmt::format("what the driver takes of {} cannot be measured: {}: {} are counted", id.to_string(),
                              reason(id), bytes_text(kAssumedDriverBytes)));
    }
  }
  for (const DeviceId& id : out.unprobed) {
    try {
      machine.rates[rate_key(id, machine)] = source.probe(id, machine);
    } catch (...) {
      source.note(fmt::format("the speed of {} cannot be probed: {}: give it with \"speed\" in the job", id.to_string(),
                              reason(id)));
      if (machine.driver_bytes.size() > known) save(machine, source);
      return job_devices(job, machine);
    }
  }
  if (!out.unprobed.empty() || machine.driver_bytes.size() > known) save(machine, source);
  return job_devices(job, machine);
}

void learn_driver_bytes(const DeviceId& id, std::uint64_t bytes, Machine& machine, const SpeedSource& source) {
  if (bytes == 0 || bytes <= known_driver_bytes(id, machine).value_or(kAssumedDriverBytes)) return;
  machine.driver_bytes[driver_key(id, machine)] = with_driver_margin(bytes);
  save(machine, source);
}

}  // namespace mgpu
