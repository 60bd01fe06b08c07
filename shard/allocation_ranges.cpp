#include "shard/allocation_ranges.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/strings.h"

namespace mgpu {
namespace {

using Kind = AllocationAmount::Kind;

constexpr double kToleratedShortfall = 0.01;  // of the component: goes to the last entry

/// Index of the room of that name, or how many there are.
std::size_t index_of(const DeviceId& id, const std::vector<DeviceRoom>& rooms) {
  return static_cast<std::size_t>(std::ranges::find(rooms, id, &DeviceRoom::id) - rooms.begin());
}

bool is_present(const DeviceId& id, const std::vector<DeviceRoom>& rooms) {
  return index_of(id, rooms) < rooms.size();
}

const DeviceRoom& room_of(const DeviceId& id, const std::vector<DeviceRoom>& devices,
                          const std::vector<DeviceRoom>& donors) {
  return is_present(id, devices) ? devices[index_of(id, devices)] : donors[index_of(id, donors)];
}

std::string names_of(const std::vector<DeviceRoom>& rooms) {
  std::vector<std::string> names;
  for (const DeviceRoom& room : rooms) names.push_back(room.id.to_string());
  return fmt::format("{}", fmt::join(names, ", "));
}

void check_present(const DeviceId& id, std::size_t column, const std::vector<DeviceRoom>& devices,
                   const std::vector<DeviceRoom>& donors) {
  if (is_present(id, devices) || is_present(id, donors)) return;
  throw AllocationError(
      column, fmt::format("{} is not on this machine", id.to_string()),
      fmt::format("the job computes on {}; any other device that is there may lend memory", names_of(devices)));
}

/// The device that a tail makes compute everything.
std::size_t sole_device(const AllocationTail& tail, const std::vector<DeviceRoom>& devices) {
  if (!is_present(tail.compute, devices))
    throw AllocationError(tail.column, fmt::format("{} does not compute in this job", tail.compute.to_string()),
                          fmt::format("its devices are {}: \"gpu_ids\" names them", names_of(devices)));
  return index_of(tail.compute, devices);
}

/// Cuts at the units nearest to the shares' bounds.
std::vector<ChainRange> cut_by_share(const Chain& chain, ChainRange whole, const std::vector<double>& shares) {
  double sum = 0.0, before = 0.0;
  for (const double share : shares) sum += share;
  const auto total = static_cast<double>(chain.bytes(whole));
  std::vector<ChainRange> runs;
  int end = whole.first;
  for (std::size_t k = 0; k < shares.size(); ++k) {
    before += shares[k];
    const double wanted = sum > 0.0 ? total * before / sum : 0.0;
    const auto distance = [&](int unit) {
      return std::abs(static_cast<double>(chain.bytes({whole.first, unit})) - wanted);
    };
    const int first = end;
    while (end < whole.last && distance(end + 1) <= distance(end)) ++end;
    if (k + 1 == shares.size()) end = whole.last;
    runs.push_back({first, end});
  }
  return runs;
}

/// Bytes that each entry asks for; of "*" its share of what the others leave.
std::vector<double> wanted_bytes(const std::vector<AllocationEntry>& entries, double total,
                                 const std::vector<DeviceRoom>& devices, const std::vector<DeviceRoom>& donors) {
  const auto is_rest = [](const AllocationEntry& entry) { return entry.amount.kind == Kind::Rest; };
  const bool some_rest = std::ranges::any_of(entries, is_rest);
  std::vector<double> wanted;
  double percent = 0.0, fixed = 0.0, free = 0.0;
  const auto free_bytes = [&](const AllocationEntry& entry) {
    const DeviceRoom& room = room_of(entry.device, devices, donors);
    return static_cast<double>(room.limit_bytes - std::min(room.limit_bytes, room.driver_bytes));
  };
  for (const AllocationEntry& entry : entries) {
    percent += entry.amount.kind == Kind::Percent ? entry.amount.value : 0.0;
    free += is_rest(entry) ? free_bytes(entry) : 0.0;
  }
  if (some_rest) percent = 100.0;
  for (const AllocationEntry& entry : entries) {
    const AllocationAmount& amount = entry.amount;
    const auto whole_device = static_cast<double>(room_of(entry.device, devices, donors).total_bytes);
    wanted.push_back(amount.kind == Kind::Percent    ? total * amount.value / percent
                     : amount.kind == Kind::Fraction ? whole_device * amount.value
                     : amount.kind == Kind::Bytes    ? static_cast<double>(amount.bytes)
                                                     : 0.0);
    fixed += wanted.back();
  }
  const double rest = std::max(0.0, total - fixed);
  for (std::size_t k = 0; k < entries.size(); ++k)
    if (is_rest(entries[k])) wanted[k] = free > 0.0 ? rest * free_bytes(entries[k]) / free : rest;
  return wanted;
}

[[noreturn]] void refuse_amount(const AllocationEntry& entry, const ComponentNeed& need) {
  throw AllocationError(
      entry.amount_column,
      fmt::format("no block of the {} fits into what {} is given", need.name, entry.device.to_string()),
      "give it more, or leave it out");
}

/// Fills capacities from the front up to the first "*", then from the back down to the last; the rest goes between. A
/// small rest without any "*" goes to the last entry.
std::vector<ChainRange> fill(const Chain& chain, const std::vector<AllocationEntry>& entries,
                             const std::vector<double>& capacities, const ComponentNeed& need) {
  const auto is_rest = [&](std::size_t k) { return entries[k].amount.kind == Kind::Rest; };
  std::vector<ChainRange> runs(entries.size());
  ChainRange left{0, chain.units()};
  const auto fits = [&](ChainRange run, std::size_t k) {
    return static_cast<double>(chain.held(run)) <= capacities[k];
  };
  std::size_t front = 0, back = entries.size();
  for (; front < back && !is_rest(front); ++front) {
    ChainRange& run = runs[front] = {left.first, left.first};
    while (run.last < left.last && fits({run.first, run.last + 1}, front)) ++run.last;
    if (run.empty() && !left.empty()) refuse_amount(entries[front], need);
    left.first = run.last;
  }
  if (front == back) {
    const std::uint64_t over = chain.bytes(left);
    if (static_cast<double>(over) > kToleratedShortfall * static_cast<double>(chain.bytes()))
      throw AllocationError(entries.back().amount_column,
                            fmt::format("the allocation holds {} of the {}'s {}", bytes_text(chain.bytes() - over),
                                        need.name, bytes_text(chain.bytes())),
                            fmt::format("{} are left: add them, or write * for the rest", bytes_text(over)));
    runs.back().last = left.last;
    return runs;
  }
  for (; !is_rest(back - 1); --back) {
    ChainRange& run = runs[back - 1] = {left.last, left.last};
    while (run.first > left.first && fits({run.first - 1, run.last}, back - 1)) --run.first;
    if (run.empty() && !left.empty()) refuse_amount(entries[back - 1], need);
    left.last = run.first;
  }
  const std::vector<double> shares(capacities.begin() + static_cast<std::ptrdiff_t>(front),
                                   capacities.begin() + static_cast<std::ptrdiff_t>(back));
  std::ranges::copy(cut_by_share(chain, left, shares), runs.begin() + static_cast<std::ptrdiff_t>(front));
  return runs;
}

/// Virtual VRAM: what a tail moves to its donors, each filled before the next.
std::vector<DonorShare> virtual_offload(const AllocationTail& tail, const std::vector<DeviceRoom>& devices,
                                        const std::vector<DeviceRoom>& donors) {
  std::vector<DonorShare> offloaded;
  auto left = static_cast<double>(tail.virtual_bytes);
  for (const DeviceId& id : tail.donors) {
    if (id == tail.compute) continue;  // nothing moves
    const DeviceRoom& room = room_of(id, devices, donors);
    const auto free = static_cast<double>(room.limit_bytes - std::min(room.limit_bytes, room.driver_bytes));
    offloaded.push_back({id, std::min(left, free)});
    left -= offloaded.back().bytes;
  }
  return offloaded;
}

/// The device that computes what each entry holds.
std::vector<std::size_t> computing_devices(const AllocationString& allocation, const std::vector<DeviceRoom>& devices) {
  const std::vector<AllocationEntry>& entries = allocation.entries;
  if (allocation.tail) return std::vector(entries.size(), sole_device(*allocation.tail, devices));
  const auto computes = [&](const AllocationEntry& entry) { return is_present(entry.device, devices); };
  const auto first = std::ranges::find_if(entries, computes);
  if (first == entries.end())
    throw AllocationError(entries.front().column, "no device of this allocation computes",
                          fmt::format("name one of {}", names_of(devices)));
  std::vector<std::size_t> out;
  std::size_t nearest = index_of(first->device, devices);
  for (const AllocationEntry& entry : entries) {
    if (computes(entry)) nearest = index_of(entry.device, devices);
    out.push_back(nearest);
  }
  return out;
}

/// The entries' parts of the chain, in their order.
std::vector<ChainRange> cut_entries(const std::vector<AllocationEntry>& entries, const ComponentNeed& need,
                                    const Chain& chain, const std::vector<DeviceRoom>& devices,
                                    const std::vector<DeviceRoom>& donors) {
  const std::vector<double> wanted = wanted_bytes(entries, static_cast<double>(chain.bytes()), devices, donors);
  const auto is_share = [](const AllocationEntry& entry) { return entry.amount.kind == Kind::Percent; };
  std::vector<ChainRange> runs = std::ranges::any_of(entries, is_share)
                                     ? cut_by_share(chain, {0, chain.units()}, wanted)
                                     : fill(chain, entries, wanted, need);
  for (std::size_t k = 0; k < entries.size(); ++k)
    if (is_share(entries[k]) && runs[k].empty()) refuse_amount(entries[k], need);
  return runs;
}

}  // namespace

Allotment allot(const AllocationString& allocation, const ComponentNeed& need, const Chain& chain,
                const std::vector<DeviceRoom>& devices, const std::vector<DeviceRoom>& donors) {
  Allotment out{std::vector<ChainRange>(devices.size()), std::vector<std::vector<DonorShare>>(devices.size())};
  const std::vector<AllocationEntry>& entries = allocation.entries;
  const std::optional<AllocationTail>& tail = allocation.tail;
  for (const AllocationEntry& entry : entries) check_present(entry.device, entry.column, devices, donors);
  if (tail)
    for (const DeviceId& donor : tail->donors) check_present(donor, tail->column, devices, donors);
  if (need.indivisible && entries.size() > 1)
    throw AllocationError(entries[1].column, fmt::format("the {} lies on one device", need.name),
                          "name the one device");
  if (entries.empty() || need.indivisible) {
    const std::size_t device = tail ? sole_device(*tail, devices) : computing_devices(allocation, devices).front();
    out.runs[device] = {0, chain.units()};
    if (tail && tail->virtual_bytes > 0 && !need.indivisible)
      out.offloaded[device] = virtual_offload(*tail, devices, donors);
    return out;
  }
  const std::vector<std::size_t> computing = computing_devices(allocation, devices);
  const std::vector<ChainRange> runs = cut_entries(entries, need, chain, devices, donors);
  for (std::size_t k = 0; k < entries.size(); ++k) {
    const std::size_t device = computing[k];
    ChainRange& run = out.runs[device];  // of neighbouring entries: the device's own and those of its donors
    run = run.empty() ? runs[k] : runs[k].empty() ? run : ChainRange{run.first, runs[k].last};
    if (entries[k].device != devices[device].id)
      out.offloaded[device].push_back({entries[k].device, static_cast<double>(chain.bytes(runs[k]))});
  }
  return out;
}

}  // namespace mgpu
