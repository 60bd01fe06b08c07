#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <random>

#include "shard/make_plan.h"
#include "shard/plan.h"
#include "tests/plan_cases.h"

// What a plan predicts of a job's time: a device more, more memory or more speed never makes it longer.

using namespace mgpu;
using namespace mgpu::test;

namespace {

constexpr double kRounding = 1 + 1e-6;

/// A machine of unequal devices, and a job on it.
struct Case {
  std::vector<ComponentNeed> needs;
  std::vector<DeviceRoom> devices;
  PlacementRequest request;

  Plan plan() const { return make_plan(needs, devices, request); }
};

DecodeNeed decode_need(DecodeMode mode, double slowness, std::uint64_t fixed, std::uint64_t shared,
                       std::uint64_t exchanged) {
  DecodeNeed out{.mode = mode, .slowness = slowness};
  out.on_gpu = out.on_cpu = {.units = 64, .moments = {{fixed, shared, exchanged}}};
  return out;
}

/// Ways that give the same picture: what takes less memory takes longer.
std::vector<DecodeNeed> random_modes(std::mt19937_64& random) {
  const std::uint64_t whole = random() % (6144 * kMiB);
  return {decode_need(DecodeMode::Whole, 1.0, whole, 0, 0),
          decode_need(DecodeMode::Parallel, 1.02, whole / 20, whole, whole / 10),
          decode_need(DecodeMode::Slabs, 5.0, whole / 10, whole / 2, whole / 20),
          decode_need(DecodeMode::Slabs, 8.0, whole / 10, whole / 3, whole / 20)};
}

Case random_case(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Case out{.needs = random_components(random), .devices = {}, .request = {}};
  for (ComponentNeed& need : out.needs) {
    if (need.phase == Phase::Decode) need.time_a_pass = std::array{0.01, 0.05, 0.2}[random() % 3];
    if (need.phase == Phase::Decode && random() % 4 > 0) need.modes = random_modes(random);
    if (need.phase != Phase::Sample || random() % 2 == 0) continue;
    for (BlockNeed& kind : need.blocks)
      for (int i = 0; i < kind.count; ++i) kind.precomputed.push_back(kind.bytes_of(i) / 4);
  }
  const auto count = random() % 3 + 2;
  const bool are_alike = random() % 3 == 0;  // some of them
  for (std::uint64_t i = 0; i < count; ++i) {
    out.devices.push_back(room(random() % (12288 * kMiB)));
    out.devices.back().id = DeviceId::cuda(static_cast<int>(i));
    out.devices.back().speed =
        are_alike ? std::array{1.0, 0.5}[random() % 2] : 0.05 * static_cast<double>(random() % 20 + 1);
    out.devices.back().name = std::to_string(out.devices.back().speed);
  }
  const DeviceRoom memory = main_memory(random() % 4 == 0 ? random() % (8192 * kMiB) : 65536 * kMiB);
  if (random() % 3 == 0) {  // main memory computes too, slowly
    out.devices.push_back(memory);
    out.devices.back().speed = 0.05;
  }
  out.request.evaluations = std::array{1, 1, 2, 3, 8, 100}[random() % 6];
  out.request.passes_a_run = std::min<std::int64_t>(out.request.evaluations, 2);
  if (random() % 4 != 0) out.request.donors = {memory};
  return out;
}

/// The case on those of its devices whose bits are set.
Case on_devices(const Case& all, std::uint64_t bits) {
  Case out = all;
  out.devices.clear();
  for (std::size_t d = 0; d < all.devices.size(); ++d)
    if (bits >> d & 1) out.devices.push_back(all.devices[d]);
  return out;
}

std::string text_of(const Case& one) {
  std::string out = fmt::format("{} evaluations", one.request.evaluations);
  for (const DeviceRoom& room : one.devices)
    out += fmt::format(", {} {} MiB at {}", room.id.to_string(), room.limit_bytes / kMiB, room.speed);
  return out;
}

void check_no_slower(const Plan& plan, const Plan& before) {
  if (!before.fits()) return;
  CHECK(plan.fits());
  CHECK(plan.pass_time <= before.pass_time * kRounding);
}

}  // namespace

TEST_SUITE_BEGIN("plan_time");

TEST_CASE("no plan takes longer than one of fewer devices, and what fits on fewer fits on more") {
  int fitted = 0, compared = 0, faster = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    const Case all = random_case(seed);
    CAPTURE(text_of(all));
    const Plan plan = all.plan();
    fitted += plan.fits();
    for (std::uint64_t bits = 1; bits + 1 < (std::uint64_t{1} << all.devices.size()); ++bits) {
      CAPTURE(bits);
      const Plan fewer = on_devices(all, bits).plan();
      compared += fewer.fits();
      faster += fewer.fits() && plan.pass_time < 0.99 * fewer.pass_time;
      check_no_slower(plan, fewer);
    }
  }
  CHECK(fitted > 30);
  CHECK(compared > 100);
  CHECK(faster > 50);
}

TEST_CASE("more memory or more speed makes no plan slower") {
  int compared = 0;
  for (std::uint64_t seed = 1000; seed < 1080; ++seed) {
    CAPTURE(seed);
    Case one = random_case(seed);
    CAPTURE(text_of(one));
    std::mt19937_64 random(seed);
    const Plan before = one.plan();
    DeviceRoom& device = one.devices[random() % one.devices.size()];
    if (random() % 2 == 0) {
      device.limit_bytes += random() % (8192 * kMiB);
    } else {
      device.speed *= 1.0 + static_cast<double>(random() % 100) / 50.0;
    }
    compared += before.fits();
    check_no_slower(one.plan(), before);
  }
  CHECK(compared > 30);
}

TEST_CASE("what a job lacks is enough") {
  int lacking = 0;
  for (std::uint64_t seed = 2000; seed < 2050; ++seed) {
    CAPTURE(seed);
    Case one = random_case(seed);
    const Plan plan = one.plan();
    if (plan.fits()) continue;
    ++lacking;
    std::vector<DeviceId> all;
    for (const DeviceRoom& room : one.devices) all.push_back(room.id);
    const auto missing = missing_memory(one.needs, one.devices, one.request, all, plan.lacking_bytes());
    REQUIRE(missing);
    for (DeviceRoom& room : one.devices) room.limit_bytes += *missing * kMiB;
    CHECK(one.plan().fits());
  }
  CHECK(lacking > 3);
}

TEST_CASE("one picture is not given to a slow device because that one holds everything") {
  std::vector<DeviceRoom> devices = rooms({8192 * kMiB, 24576 * kMiB});
  const auto blocks_on = [&](std::size_t device, const Plan& plan) {
    int out = 0;
    for (const Assignment& a : plan.devices[device].assignments) out += a.component == "unet" ? a.blocks : 0;
    return out;
  };
  const PlacementRequest one{.donors = {main_memory(65536 * kMiB)}};
  for (const double speed : {0.1, 0.25, 0.5}) {
    devices[1].speed = speed;
    const Plan plan = make_plan(components(), devices, one);
    CHECK(plan.fits());
    CHECK(blocks_on(0, plan) == 57);
    CHECK(plan.mode_reason.find(fmt::format(
              "; without a block of the unet: cuda:1 at {:.3g} of the speed would make it slower", speed)) !=
          std::string::npos);
  }
  // A CPU beside a GPU that has to stream from it.
  devices = {room(24576 * kMiB), main_memory(65536 * kMiB)};
  devices[1].speed = 0.02;
  const Plan beside_cpu = make_plan(components(), devices, one);
  CHECK(blocks_on(0, beside_cpu) == 57);
  // Many pictures flow: half the speed is half a device more.
  devices = rooms({24576 * kMiB, 24576 * kMiB});
  devices[1].speed = 0.5;
  CHECK(blocks_on(1, make_plan(components(), devices, {.evaluations = 16})) == 20);  // and the decodes on the other
}

TEST_CASE("an idle device is told why") {
  std::vector<DeviceRoom> devices = rooms({65536 * kMiB, 65536 * kMiB, 900 * kMiB});
  devices[1].speed = 0.25;
  const Plan plan = make_plan(components(), devices);
  CHECK(
      plan.mode_reason ==
      "cuda:0 holds everything, and one picture at a time would be no faster on several devices; idle: cuda:2 with no "
      "room for a block of the unet; idle: cuda:1 at 0.25 of the speed would make it slower");
}

TEST_SUITE_END();
