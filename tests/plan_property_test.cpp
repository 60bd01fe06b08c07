#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>

#include "shard/make_plan.h"
#include "shard/plan.h"
#include "tests/plan_cases.h"

// What holds of every plan: of 300 random jobs on random devices.

using namespace mgpu;
using namespace mgpu::test;

namespace {

std::vector<DeviceRoom> random_rooms(std::mt19937_64& random) {
  std::vector<DeviceRoom> out;
  const auto count = random() % 5 + 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    out.push_back(room(random() % (10240 * kMiB)));
    out.back().id = DeviceId::cpu(static_cast<int>(i));
    out.back().speed = std::array{1.0, 1.0, 0.5, 0.1}[random() % 4];
  }
  return out;
}

/// Every block once; ranges contiguous; devices in order; pairs together; one device for what stays whole.
void check_covers(const Plan& plan, const std::vector<ComponentNeed>& needs) {
  for (const ComponentNeed& need : needs) {
    CAPTURE(need.name);
    std::size_t last_device = 0;
    for (std::size_t kind = 0; kind < need.blocks.size(); ++kind) {
      const BlockNeed& block = need.blocks[kind];
      int assigned = 0;
      for (const PlannedDevice& device : plan.devices) {
        int ranges = 0;
        for (const Assignment& a : device.assignments) {
          if (a.component != need.name || a.kind != block.kind) continue;
          ++ranges;
          assigned += a.blocks;
          CHECK(a.blocks == a.last - a.first + 1);
          std::uint64_t bytes = 0;
          for (int i = a.first; i <= a.last; ++i) bytes += block.bytes_of(i);
          CHECK(a.bytes == bytes);
        }
        CHECK(ranges <= 1);
      }
      CHECK(assigned == block.count);
      for (int i = 0; i < block.count; ++i) {
        const std::size_t device = plan.device_of(need.name, block.kind, i);
        if (need.skip_paired) {
          if (kind == 0) CHECK(device == plan.device_of(need.name, need.blocks.back().kind, block.count - 1 - i));
          if (kind == 1) CHECK(device == plan.device_of(need.name, need.blocks[0].kind, need.blocks[0].count - 1));
          if (kind > 0) continue;
        }
        CHECK(device >= last_device);
        if (need.indivisible && i + kind > 0) CHECK(device == last_device);
        last_device = device;
      }
    }
  }
}

/// The predicted peaks add up: counted from the assignments alone.
void check_peaks(const Plan& plan, const std::vector<ComponentNeed>& needs) {
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    const PlannedDevice& device = plan.devices[d];
    PhaseBytes expected{};
    for (const Phase phase : kPhases) {
      std::uint64_t resident = 0, transient = 0;
      for (const ComponentNeed& need : needs) {
        std::uint64_t bytes = 0, in_blocks = need.head;
        for (const Assignment& a : device.assignments) bytes += a.component == need.name ? a.bytes : 0;
        if (bytes == 0) continue;
        for (const BlockNeed& block : need.blocks) in_blocks += block.bytes;
        const BlockNeed &first = need.blocks.front(), &last = need.blocks.back();
        const bool is_first = plan.device_of(need.name, first.kind, 0) == d;
        bytes += is_first ? need.bytes - in_blocks + need.latent_device_bytes : need.replicated_bytes;
        if (plan.device_of(need.name, last.kind, last.count - 1) == d) bytes += need.head;
        const bool stays = need.phase != Phase::Encode && phase != Phase::Encode;
        if (stays) resident += bytes;
        if (is_first && need.phase != Phase::Encode && phase == Phase::Encode)
          transient = std::max(transient, 2 * need.latent_device_bytes);
        if (need.phase == phase) transient = std::max(transient, need.activation + (stays ? 0 : bytes));
      }
      expected[phase] = device.assignments.empty() ? 0 : device.room.driver_bytes + resident + transient;
      CHECK(device.peak[phase] == expected[phase]);
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("plan_property");

TEST_CASE("properties of random plans") {
  std::mt19937_64 random(42);
  int fitted = 0, refused = 0, cut = 0;
  for (int round = 0; round < 300; ++round) {
    CAPTURE(round);
    const std::vector<ComponentNeed> needs = random_components(random);
    const std::vector<DeviceRoom> devices = random_rooms(random);
    const PlacementRequest request{
        .mode = random() % 4 == 0 ? PlacementRequest::Mode::Shard : PlacementRequest::Mode::Auto,
        .evaluations = static_cast<std::int64_t>(random() % 3 + 1)};
    const Plan plan = make_plan(needs, devices, request);
    (plan.fits() ? fitted : refused) += 1;
    cut += plan.mode == "shard";
    check_covers(plan, needs);
    check_peaks(plan, needs);
    for (const PlannedDevice& device : plan.devices)
      for (const Phase phase : kPhases)
        if (plan.fits()) CHECK(device.peak[phase] <= device.room.limit_bytes);
    CHECK(summary_of(make_plan(needs, devices, request)) == summary_of(plan));
    // More memory never turns a fit into a refusal.
    std::vector<DeviceRoom> larger = devices;
    for (DeviceRoom& room : larger) room.limit_bytes += random() % 3 == 0 ? random() % (4096 * kMiB) : 0;
    if (plan.fits()) CHECK(make_plan(needs, larger, request).fits());
    // Nor is a refusal wrong by a byte: what it says is lacking is enough.
    for (DeviceRoom& room : larger = devices) room.limit_bytes += plan.lacking_bytes();
    CHECK(make_plan(needs, larger, request).fits());
  }
  CHECK(fitted > 50);
  CHECK(refused > 50);
  CHECK(cut > 100);
}

TEST_CASE("equal devices with room get shares within one block of each other") {
  std::mt19937_64 random(3);
  for (int round = 0; round < 100; ++round) {
    CAPTURE(round);
    const auto count = static_cast<std::size_t>(random() % 6 + 2);
    std::vector<ComponentNeed> needs = random_components(random);
    std::erase_if(needs, [](const ComponentNeed& need) { return need.phase != Phase::Sample; });
    const Plan plan =
        make_plan(needs, rooms(std::vector<std::uint64_t>(count, std::uint64_t{1} << 40)), {.evaluations = 9});
    const ComponentNeed& unet = needs.front();
    double longest = 0.0, least = 1e30, most = 0.0;
    for (const BlockNeed& kind : unet.blocks)
      for (int i = 0; i < kind.count; ++i) longest = std::max(longest, kind.time_of(i));
    if (unet.skip_paired) longest *= 3;  // down, up and middle move together
    for (std::size_t d = 0; d < count; ++d) {
      least = std::min(least, plan.devices[d].time);
      most = std::max(most, plan.devices[d].time);
      // Unequal blocks in a fixed order: neighbours differ by no more than the block between them.
      if (d > 0) CHECK(std::abs(plan.devices[d].time - plan.devices[d - 1].time) <= longest + 1e-9);
    }
    if (unet.blocks.front().times.empty()) CHECK(most - least <= longest);
  }
}

TEST_CASE("more memory makes no plan slower") {
  int compared = 0, faster = 0;
  for (int round = 0; round < 600; ++round) {
    CAPTURE(round);
    std::mt19937_64 random(static_cast<std::uint64_t>(round));
    const std::vector<ComponentNeed> needs = random_components(random);
    std::vector<DeviceRoom> devices = random_rooms(random);
    const PlacementRequest request{.evaluations = 100, .donors = {main_memory(65536 * kMiB)}};
    const Plan before = make_plan(needs, devices, request);
    devices[random() % devices.size()].limit_bytes += random() % (16384 * kMiB);
    const Plan after = make_plan(needs, devices, request);
    if (!before.fits()) continue;
    CHECK(after.fits());
    ++compared;
    faster += after.pass_time < 0.99 * before.pass_time;
    // As little as is gained by streaming is not worth it.
    CHECK(after.pass_time <= before.pass_time / 0.85);
  }
  CHECK(compared > 50);
  CHECK(faster > 20);
}

TEST_CASE("can_fit() says what make_plan() finds") {
  std::mt19937_64 random(7);
  int fitted = 0;
  for (int round = 0; round < 200; ++round) {
    CAPTURE(round);
    const std::vector<ComponentNeed> needs = random_components(random);
    const std::vector<DeviceRoom> devices = random_rooms(random);
    PlacementRequest request{.evaluations = static_cast<std::int64_t>(random() % 3 + 1)};
    if (random() % 2 == 0) request.donors = {main_memory(random() % (16384 * kMiB))};
    const bool fits = make_plan(needs, devices, request).fits();
    CHECK(can_fit(needs, devices, request) == fits);
    fitted += fits;
  }
  CHECK(fitted > 30);
  CHECK(fitted < 170);
}

TEST_CASE("a plan for 16 devices is found") {
  CHECK(make_plan(components(), rooms(std::vector<std::uint64_t>(16, 4096 * kMiB))).fits());
}

TEST_SUITE_END();
