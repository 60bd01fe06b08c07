#include "shard/amounts.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/strings.h"

namespace mgpu {
namespace {

using Kind = AllocationAmount::Kind;

constexpr double kToleratedShortfall = 0.01;  // of the component: goes to the last entry

bool is_present(const DeviceId& id, const std::vector<DeviceRoom>& devices) {
  return std::ranges::find(devices, id, &DeviceRoom::id) != devices.end();
}

std::size_t index_of(const DeviceId& id, const std::vector<DeviceRoom>& devices) {
  return static_cast<std::size_t>(std::ranges::find(devices, id, &DeviceRoom::id) - devices.begin());
}

[[noreturn]] void refuse_streaming(std::size_t column, const DeviceId& donor, std::string hint) {
  throw AllocationError(column, fmt::format("streaming from {} is not supported yet", donor.to_string()),
                        std::move(hint));
}

/// The device that a tail makes compute everything.
std::size_t sole_device(const AllocationString& allocation, const std::vector<DeviceRoom>& devices) {
  const AllocationTail& tail = *allocation.tail;
  if (!is_present(tail.compute, devices)) {
    std::vector<std::string> names;
    for (const DeviceRoom& room : devices) names.push_back(room.id.to_string());
    throw AllocationError(tail.column, fmt::format("{} does not compute in this job", tail.compute.to_string()),
                          fmt::format("its devices are {}: \"gpu_ids\" names them", fmt::join(names, ", ")));
  }
  const std::string hint = fmt::format(
      "{} computes everything here, and the others lend memory; without that, every "
      "device computes what it holds",
      tail.compute.to_string());
  for (const AllocationEntry& entry : allocation.entries)
    if (entry.device != tail.compute) refuse_streaming(entry.column, entry.device, hint);
  if (tail.virtual_bytes > 0)
    for (const DeviceId& donor : tail.donors)
      if (donor != tail.compute) refuse_streaming(tail.column, donor, hint);
  return index_of(tail.compute, devices);
}

/// Cuts at the units nearest to the shares' bounds.
std::vector<Run> cut_by_share(const Chain& chain, Run whole, const std::vector<double>& shares) {
  double sum = 0.0, before = 0.0;
  for (const double share : shares) sum += share;
  const auto total = static_cast<double>(chain.bytes(whole));
  std::vector<Run> runs;
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
                                 const std::vector<DeviceRoom>& devices) {
  const auto is_rest = [](const AllocationEntry& entry) { return entry.amount.kind == Kind::Rest; };
  const bool some_rest = std::ranges::any_of(entries, is_rest);
  std::vector<double> wanted;
  double percent = 0.0, fixed = 0.0, free = 0.0;
  const auto free_bytes = [&](const AllocationEntry& entry) {
    const DeviceRoom& room = devices[index_of(entry.device, devices)];
    return static_cast<double>(room.limit_bytes - std::min(room.limit_bytes, room.driver_bytes));
  };
  for (const AllocationEntry& entry : entries) {
    percent += entry.amount.kind == Kind::Percent ? entry.amount.value : 0.0;
    free += is_rest(entry) ? free_bytes(entry) : 0.0;
  }
  if (some_rest) percent = 100.0;
  for (const AllocationEntry& entry : entries) {
    const AllocationAmount& amount = entry.amount;
    const auto whole_device = static_cast<double>(devices[index_of(entry.device, devices)].total_bytes);
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
std::vector<Run> fill(const Chain& chain, const std::vector<AllocationEntry>& entries,
                      const std::vector<double>& capacities, const ComponentNeed& need) {
  const auto is_rest = [&](std::size_t k) { return entries[k].amount.kind == Kind::Rest; };
  std::vector<Run> runs(entries.size());
  Run left{0, chain.units()};
  const auto fits = [&](Run run, std::size_t k) { return static_cast<double>(chain.held(run)) <= capacities[k]; };
  std::size_t front = 0, back = entries.size();
  for (; front < back && !is_rest(front); ++front) {
    Run& run = runs[front] = {left.first, left.first};
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
    Run& run = runs[back - 1] = {left.last, left.last};
    while (run.first > left.first && fits({run.first - 1, run.last}, back - 1)) --run.first;
    if (run.empty() && !left.empty()) refuse_amount(entries[back - 1], need);
    left.last = run.first;
  }
  const std::vector<double> shares(capacities.begin() + static_cast<std::ptrdiff_t>(front),
                                   capacities.begin() + static_cast<std::ptrdiff_t>(back));
  std::ranges::copy(cut_by_share(chain, left, shares), runs.begin() + static_cast<std::ptrdiff_t>(front));
  return runs;
}

}  // namespace

std::vector<Run> allocated_runs(const AllocationString& allocation, const ComponentNeed& need, const Chain& chain,
                                const std::vector<DeviceRoom>& devices) {
  std::vector<Run> out(devices.size());
  const std::vector<AllocationEntry>& entries = allocation.entries;
  if (allocation.tail) {
    out[sole_device(allocation, devices)] = {0, chain.units()};
    return out;
  }
  for (const AllocationEntry& entry : entries)
    if (!is_present(entry.device, devices))
      refuse_streaming(entry.column, entry.device,
                       "a device in \"gpu_ids\" computes what it holds; others lend memory");
  if (need.whole) {
    if (entries.size() > 1)
      throw AllocationError(entries[1].column, fmt::format("the {} lies on one device", need.name),
                            "name the one device");
    out[index_of(entries.front().device, devices)] = {0, chain.units()};
    return out;
  }
  const std::vector<double> wanted = wanted_bytes(entries, static_cast<double>(chain.bytes()), devices);
  const bool shares = std::ranges::any_of(entries, [](const auto& e) { return e.amount.kind == Kind::Percent; });
  const std::vector<Run> runs =
      shares ? cut_by_share(chain, {0, chain.units()}, wanted) : fill(chain, entries, wanted, need);
  for (std::size_t k = 0; k < entries.size(); ++k) {
    if (entries[k].amount.kind == Kind::Percent && runs[k].empty()) refuse_amount(entries[k], need);
    out[index_of(entries[k].device, devices)] = runs[k];
  }
  return out;
}

}  // namespace mgpu
