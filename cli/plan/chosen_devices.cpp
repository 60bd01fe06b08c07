#include "cli/plan/chosen_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "cli/job/checks/value_checks.h"
#include "cli/job/named_devices.h"
#include "cli/job/schedules.h"
#include "core/error.h"
#include "core/own_memory.h"
#include "core/strings.h"
#include "core/text/text_encoder.h"

namespace mgpu {
namespace {

void check_device(const Job& job, const DeviceId& id, const Machine& machine) {
  const Mark& mark = job.placement.gpu_ids.mark;
  if (!is_there(id, machine))
    throw job.error(mark, fmt::format("device \"{}\" is not on this machine", id.to_string()),
                    fmt::format("there are: {}", list_of(machine)));
  if (!id.is_cuda()) return;
  if (const std::string reason = unusable_reason(gpu_of(id, machine)); !reason.empty())
    throw job.error(mark, fmt::format("device \"{}\" cannot be used: {}", id.to_string(), reason));
}

/// Every device that can be used; of GPUs beside a CPU only the GPUs, unless the job is for CPUs.
std::vector<DeviceId> all_devices(const Machine& machine, Exact exact) {
  std::vector<DeviceId> out;
  for (const GpuInfo& gpu : machine.survey.gpus)
    if (unusable_reason(gpu).empty() && exact != Exact::Portable) out.push_back(gpu.id);
  if (!out.empty()) return out;
  for (const auto& [id, bytes] : machine.virtual_cpus) out.push_back(id);
  return out.empty() ? std::vector{DeviceId::cpu()} : out;
}

/// What the job's vram_limit makes of a device that has so much free. Throws Error where it leaves nothing, or says
/// more than the device has.
std::uint64_t limited(const Job& job, const DeviceRoom& room, std::int64_t limit, bool is_own) {
  const Mark& mark = job.placement.vram_limit.mark;
  const std::uint64_t free = room.limit_bytes, amount = static_cast<std::uint64_t>(limit < 0 ? -limit : limit);
  const std::string id = room.id.to_string();
  if (limit < 0 && amount >= free)
    throw job.error(
        mark,
        fmt::format("\"vram_limit\" leaves {} free on {}, which has {}", bytes_text(amount), id, bytes_text(free)),
        "leave less free");
  if (limit < 0) return free - amount;
  if (amount > room.total_bytes && is_own)
    throw job.error(
        mark,
        fmt::format("\"vram_limit\" is {} on {}, which has {}", bytes_text(amount), id, bytes_text(room.total_bytes)),
        "without a limit it is what is free; -1GB leaves that much free");
  return std::min(amount, room.total_bytes);
}

/// `limit_all`: the limit of every device is this one's too.
DeviceRoom room_of(const Job& job, const DeviceId& id, const Machine& machine, bool limit_all) {
  const DeviceSurvey& survey = machine.survey;
  // What this program holds is no longer free, and is the CPU's to count; virtual devices share it.
  const std::uint64_t program = id == DeviceId::cpu() ? survey.process_bytes : 0;
  const std::uint64_t limit_bytes = std::min(survey.host_total_bytes, survey.host_free_bytes + program);
  DeviceRoom room{id, "CPU", "", survey.host_total_bytes, limit_bytes, program};
  room.limited_by = limit_bytes < survey.host_total_bytes ? survey.host_free_limit : survey.host_limit;
  if (id.is_cuda()) {
    const GpuInfo& gpu = gpu_of(id, machine);
    room = {id,
            gpu.name,
            gpu.uuid,
            gpu.total_bytes,
            gpu.free_bytes,
            known_driver_bytes(id, machine).value_or(kAssumedDriverBytes)};
  }
  if (const auto supposed = machine.virtual_cpus.find(id); supposed != machine.virtual_cpus.end())
    room.total_bytes = room.limit_bytes = supposed->second;
  const VramLimit& limit = *job.placement.vram_limit;
  const auto own = limit.device.find(id);
  std::optional<std::uint64_t> given;
  if (own != limit.device.end())
    given = limited(job, room, own->second, true);
  else if (limit.each && limit_all)
    given = limited(job, room, *limit.each, false);
  // What other programs hold is not to be had, whatever the job allows.
  if (!given || *given >= room.limit_bytes) return room;
  room.limit_bytes = *given;
  room.limited_by.clear();
  return room;
}

/// CPU devices of a machine that is not supposed share its main memory: those that the job gives no limit have equal
/// parts of what the others' limits leave.
void share_main_memory(const Job& job, const Machine& machine, std::vector<DeviceRoom>& rooms) {
  const VramLimit& limit = *job.placement.vram_limit;
  std::vector<DeviceRoom*> sharing;
  std::uint64_t taken = 0;
  for (DeviceRoom& room : rooms) {
    if (room.id.is_cuda() || machine.virtual_cpus.contains(room.id)) continue;
    if (limit.each || limit.device.contains(room.id))
      taken += room.limit_bytes;
    else
      sharing.push_back(&room);
  }
  for (DeviceRoom* room : sharing)
    room->limit_bytes = (room->limit_bytes - std::min(room->limit_bytes, taken)) / sharing.size();
}

/// The speed that somebody has said.
std::optional<double> given_speed(const Job& job, const DeviceId& id, const Machine& machine) {
  for (const auto* speeds : {&*job.placement.speed, &machine.speed})
    if (const auto own = speeds->find(id); own != speeds->end()) return own->second;
  return std::nullopt;
}

void set_speeds(const Job& job, const Machine& machine, ChosenDevices& devices) {
  std::map<std::string, DeviceId> kinds;
  bool all_given = true, some_cuda = false;
  for (const DeviceRoom& room : devices.rooms) {
    kinds.emplace(rate_key(room.id, machine), room.id);
    all_given = all_given && given_speed(job, room.id, machine);
    some_cuda = some_cuda || room.id.is_cuda();
  }
  double fastest = 0.0;
  const bool probed = kinds.size() > 1 && !all_given;
  for (const auto& [key, id] : kinds) {
    const auto rate = machine.rates.find(key);
    if (rate != machine.rates.end()) fastest = std::max(fastest, rate->second);
    if (probed && rate == machine.rates.end()) devices.unprobed.push_back(id);
  }
  for (DeviceRoom& room : devices.rooms) {
    if (!room.id.is_cuda() && some_cuda) room.speed = kCpuSpeed;
    if (probed && devices.unprobed.empty())
      room.speed = relative_speed(machine.rates.at(rate_key(room.id, machine)), fastest);
    room.speed = given_speed(job, room.id, machine).value_or(room.speed);
  }
}

/// What of a component's allocation the plan has to keep to; nothing where it says nothing.
std::optional<AllocationString> allocation_of(const ComponentAllocation& wanted, const ChosenDevices& devices) {
  AllocationString out;
  if (wanted.compute.size() > 1) return std::nullopt;  // the autoencoder's coders
  if (wanted.expert) out = wanted.expert->value;
  const bool offloads = !wanted.expert && wanted.virtual_vram_gb > 0.0;
  if (!out.tail && (!wanted.compute.empty() || offloads)) {
    out.tail = AllocationTail{wanted.compute.empty() ? devices.rooms.front().id : wanted.compute.front(), 0, {}};
    if (offloads) {
      out.tail->virtual_bytes = static_cast<std::uint64_t>(wanted.virtual_vram_gb * 0x1p30);
      out.tail->donors = wanted.donors.empty() ? std::vector{DeviceId::cpu()} : wanted.donors;
    }
  }
  std::erase_if(out.entries, [&](const AllocationEntry& entry) {
    return std::ranges::find(devices.dropped, entry.device) != devices.dropped.end();
  });
  if (out.entries.empty() && !out.tail) return std::nullopt;
  return out;
}

/// A component's allocation: its own, or that of all encoders.
const Marked<ComponentAllocation>* allocation_for(const Job& job, std::string_view component) {
  const Allocation& a = job.placement.allocation;
  if (component == "unet") return &a.unet;
  if (component == "vae") return &a.vae;
  const auto own = a.encoders.find(component);
  return own != a.encoders.end() && own->second.given ? &own->second : &a.clip;
}

/// `cpu`, which may compute too, then the others that allocations name.
std::vector<DeviceRoom> donors_of(const Job& job, const Machine& machine, const std::vector<DeviceId>& computing) {
  std::vector<DeviceId> ids{DeviceId::cpu()};
  for (const auto& [name, component] : job.placement.allocation.all())
    std::ranges::copy(donors_named(**component, computing), std::back_inserter(ids));
  std::vector<DeviceRoom> out;
  for (const DeviceId& id : ids)
    if (is_there(id, machine) && std::ranges::find(out, id, &DeviceRoom::id) == out.end())
      out.push_back(room_of(job, id, machine, /*limit_all=*/false));
  return out;
}

/// Sets how many evaluations there are, and passes and texts of one run.
void count_evaluations(PlacementRequest& request, const Job& job) {
  request.evaluations = 0;
  std::set<std::tuple<std::string_view, int, double, LevelsKey>> different;
  for (const ImageJob& image : job.images) {
    const std::vector<std::string_view> prompts = run_prompts(image);
    const auto texts = static_cast<std::int64_t>(prompts.size());
    for (const std::string_view prompt : prompts)
      different.emplace(prompt, *image.sampler.clip_skip, *image.sampler.guidance, levels_key(image));
    request.evaluations += std::int64_t{*image.count} * *image.batch * texts;
    request.passes_a_run = std::max(request.passes_a_run, *image.batch * texts);
    request.texts_a_run = std::max(request.texts_a_run, texts);
  }
  request.texts = static_cast<std::int64_t>(different.size());
}

/// A supposed GPU has no UUID.
std::vector<DeviceId> unmeasured_kinds(const std::vector<DeviceRoom>& rooms, const Machine& machine) {
  std::map<std::string, DeviceId> kinds;
  for (const DeviceRoom& room : rooms)
    if (room.id.is_cuda() && !room.uuid.empty() && !known_driver_bytes(room.id, machine))
      kinds.emplace(driver_key(room.id, machine), room.id);
  std::vector<DeviceId> out;
  for (const auto& [key, id] : kinds) out.push_back(id);
  return out;
}

/// Devices that the autoencoder is to be spread over must compute.
void check_vae_devices(const Job& job, const ChosenDevices& devices) {
  const auto& vae = job.placement.allocation.vae;
  for (const DeviceId& id : vae->compute) {
    const bool computes = std::ranges::find(devices.rooms, id, &DeviceRoom::id) != devices.rooms.end();
    if (vae->compute.size() > 1 && !computes && std::ranges::find(devices.dropped, id) == devices.dropped.end())
      throw vae_device_error(job, id);
  }
}

}  // namespace

ChosenDevices job_devices(const Job& job, const Machine& machine) {
  ChosenDevices out;
  const auto& wanted = job.placement.gpu_ids;
  std::vector<DeviceId> ids = wanted.given ? *wanted : all_devices(machine, *job.exact);
  if (wanted.given && *job.placement.drop_missing_devices) {
    std::ranges::copy_if(ids, std::back_inserter(out.dropped), [&](const auto& id) { return !is_there(id, machine); });
    if (out.dropped.size() < ids.size()) std::erase_if(ids, [&](const auto& id) { return !is_there(id, machine); });
  }
  for (const DeviceId& id : ids) check_device(job, id, machine);
  out.all_cuda = std::ranges::all_of(ids, &DeviceId::is_cuda);
  out.all_bf16 = std::ranges::all_of(ids, [&](const DeviceId& id) { return has_bf16(id, machine); });
  // Main memory beside GPUs is none of theirs, and lends to them.
  const bool some_cuda = std::ranges::any_of(ids, &DeviceId::is_cuda);
  for (const DeviceId& id : ids) out.rooms.push_back(room_of(job, id, machine, !some_cuda || id != DeviceId::cpu()));
  share_main_memory(job, machine, out.rooms);
  check_vae_devices(job, out);
  set_speeds(job, machine, out);
  out.unmeasured = unmeasured_kinds(out.rooms, machine);
  out.donors = donors_of(job, machine, ids);
  return out;
}

namespace {

DecodeMode decode_mode(DecodeSetting mode) {
  return mode == DecodeSetting::Parallel ? DecodeMode::Parallel
         : mode == DecodeSetting::Tiled  ? DecodeMode::Tiled
                                         : DecodeMode::Whole;
}

}  // namespace

PlacementRequest placement_request(const Job& job, const ChosenDevices& devices) {
  using RequestMode = PlacementRequest::Mode;
  PlacementRequest out;
  out.mode = *job.placement.mode == Mode::Single  ? RequestMode::Single
             : *job.placement.mode == Mode::Shard ? RequestMode::Shard
                                                  : RequestMode::Auto;
  count_evaluations(out, job);
  out.donors = devices.donors;
  if (const auto& vae = job.placement.allocation.vae; vae->compute.size() > 1) {
    out.vae_devices = vae->compute;
    out.decode_mode = DecodeMode::Parallel;
  }
  if (const DecodeSetting mode = *job.decode.mode; mode != DecodeSetting::Auto) out.decode_mode = decode_mode(mode);
  std::vector<std::string> components{"unet", "vae"};
  for (const TextEncoderModel* encoder : text_encoders()) components.emplace_back(encoder->key());
  for (const std::string& component : components)
    if (const auto given = allocation_of(**allocation_for(job, component), devices)) out.allocation[component] = *given;
  return out;
}

Error placement_error(const Job& job, const PlacementError& error) {
  const Marked<ComponentAllocation>& given = *allocation_for(job, error.component());
  const Mark mark = given->expert ? job.place_in(*given->expert, error.column()) : given.mark;
  return job.error(mark, error.what(), error.hint());
}

}  // namespace mgpu
