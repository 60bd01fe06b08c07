#include "cli/plan/machine.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/strings.h"
#include "shard/allocation.h"

namespace mgpu {
namespace {

constexpr int kLowestForBf16 = 80;  // compute capability, times ten

/// "24GB@0.5"
void suppose_device(Machine& machine, std::string_view entry, std::set<DeviceId>& seen) {
  const auto fail = [&](const std::string& why) {
    throw Error(Exit::Usage, Mark{"--devices"}, why, "as in --devices \"cuda:0=8GB,cuda:1=24GB@0.5,cpu=16GB\"");
  };
  const std::size_t equals = std::min(entry.find('='), entry.size()), at = std::min(entry.find('@'), entry.size());
  const auto id = parse_device(entry.substr(0, equals));
  if (!id) fail(fmt::format("{} is no device", in_quotes(entry.substr(0, equals))));
  if (!seen.insert(*id).second) fail(fmt::format("{} is given twice", id->to_string()));
  if (equals == entry.size()) fail(fmt::format("{} has no memory", id->to_string()));
  const std::string_view size = entry.substr(equals + 1, at - std::min(equals + 1, at));
  const std::uint64_t bytes = parse_memory_amount(size).value_or(0);
  if (bytes == 0) fail(fmt::format("{} is no size such as 8GB", in_quotes(size)));
  if (id->is_cuda()) {
    machine.survey.gpus.push_back({*id, "supposed", "", 9, 0, bytes, bytes, ""});
  } else if (id->index < 0) {
    machine.survey.host_total_bytes = machine.survey.host_free_bytes = bytes;
  } else {
    machine.virtual_cpus[*id] = bytes;
  }
  double speed = 1.0;
  if (at < entry.size()) {
    const std::string_view text = entry.substr(at + 1);
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), speed);
    if (fault != std::errc{} || end != text.data() + text.size() || !(speed > 0.0) || !std::isfinite(speed))
      fail(fmt::format("{} is no speed such as 0.5", in_quotes(text)));
    machine.speed[*id] = speed;
  }
}

}  // namespace

bool is_there(const DeviceId& id, const Machine& machine) {
  if (!id.is_cuda()) return machine.virtual_cpus.empty() || id.index < 0 || machine.virtual_cpus.contains(id);
  return std::ranges::find(machine.survey.gpus, id, &GpuInfo::id) != machine.survey.gpus.end();
}

const GpuInfo& gpu_of(const DeviceId& id, const Machine& machine) {
  return *std::ranges::find(machine.survey.gpus, id, &GpuInfo::id);
}

std::string list_of(const Machine& machine) {
  std::string out = device_list(machine.survey);
  for (const auto& [id, bytes] : machine.virtual_cpus) out += ", " + id.to_string();
  return out;
}

bool has_bf16(const DeviceId& id, const Machine& machine) {
  if (!id.is_cuda()) return false;
  const GpuInfo& gpu = gpu_of(id, machine);
  return gpu.major * 10 + gpu.minor >= kLowestForBf16;
}

std::string rate_key(const DeviceId& id, const Machine& machine) {
  return speed_key(id.is_cuda() ? gpu_of(id, machine).name : fmt::format("CPU, {} threads", at::get_num_threads()),
                   machine.survey.driver_version);
}

std::string driver_key(const DeviceId& id, const Machine& machine) {
  return driver_key(gpu_of(id, machine).name, machine.survey.driver_version);
}

std::optional<std::uint64_t> known_driver_bytes(const DeviceId& id, const Machine& machine) {
  if (!id.is_cuda()) return std::nullopt;
  const auto known = machine.driver_bytes.find(driver_key(id, machine));
  return known == machine.driver_bytes.end() ? std::nullopt : std::optional(known->second);
}

Machine suppose_machine(std::string_view devices) {
  Machine machine;
  std::set<DeviceId> seen;
  while (true) {
    const std::size_t end = devices.find(',');
    suppose_device(machine, devices.substr(0, end), seen);
    if (end == std::string_view::npos) return machine;
    devices.remove_prefix(end + 1);
  }
}

}  // namespace mgpu
