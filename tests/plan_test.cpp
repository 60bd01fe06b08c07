#include "shard/plan.h"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "tests/plan_cases.h"

using namespace mgpu;
using namespace mgpu::test;

namespace {

std::vector<int> blocks_of(const Plan& plan) {
  std::vector<int> out;
  for (const PlannedDevice& device : plan.devices) {
    out.push_back(0);
    for (const Assignment& a : device.assignments) out.back() += a.component == "unet" ? a.blocks : 0;
  }
  return out;
}

std::string summary(const Plan& plan) {
  std::string out = plan.mode + plan.mode_reason + plan.shortfall;
  for (const char* component : {"clip_l", "t5xxl", "unet", "vae"}) out += "; " + ranges_of(plan, component);
  return out;
}

ComponentNeed random_component(std::mt19937_64& random, const char* name, Phase phase, int kinds, bool mirrored) {
  ComponentNeed need{
      .name = name, .phase = phase, .blocks = {}, .activation = random() % (1024 * kMiB), .mirrored = mirrored};
  const int count = static_cast<int>(random() % 20 + 1);
  const bool unequal = random() % 2 == 0;
  for (int kind = 0; kind < kinds; ++kind) {
    const bool middle = mirrored && kind == 1;
    BlockNeed block{fmt::format("kind{}", kind), middle ? 1 : mirrored ? count : static_cast<int>(random() % 20 + 1)};
    for (int i = 0; i < block.count && unequal; ++i) {
      block.each.push_back(random() % (500 * kMiB) + 1);
      block.times.push_back(static_cast<double>(random() % 16 + 1));
    }
    const std::uint64_t each = random() % (500 * kMiB) + 1;
    block.bytes = unequal ? std::accumulate(block.each.begin(), block.each.end(), std::uint64_t{0})
                          : each * static_cast<std::uint64_t>(block.count);
    need.bytes += block.bytes;
    need.blocks.push_back(block);
  }
  need.head = random() % (300 * kMiB);
  need.bytes += need.head + random() % (300 * kMiB);
  need.each = random() % (50 * kMiB);
  need.home = random() % (50 * kMiB);
  return need;
}

std::vector<ComponentNeed> random_components(std::mt19937_64& random) {
  const bool mirrored = random() % 2 == 0;
  std::vector<ComponentNeed> out = {random_component(random, "clip_l", Phase::Encode, 1, false),
                                    random_component(random, "unet", Phase::Sample, mirrored ? 3 : 2, mirrored),
                                    random_component(random, "vae", Phase::Decode, 1, false)};
  out.back().whole = true;
  if (random() % 2 == 0) out.insert(out.begin() + 1, random_component(random, "t5xxl", Phase::Encode, 1, false));
  return out;
}

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
        if (need.mirrored) {
          if (kind == 0) CHECK(device == plan.device_of(need.name, need.blocks.back().kind, block.count - 1 - i));
          if (kind == 1) CHECK(device == plan.device_of(need.name, need.blocks[0].kind, need.blocks[0].count - 1));
          if (kind > 0) continue;
        }
        CHECK(device >= last_device);
        if (need.whole && i + kind > 0) CHECK(device == last_device);
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
      std::uint64_t resident = 0, turn = 0;
      for (const ComponentNeed& need : needs) {
        std::uint64_t bytes = 0, in_blocks = need.head;
        for (const Assignment& a : device.assignments) bytes += a.component == need.name ? a.bytes : 0;
        if (bytes == 0) continue;
        for (const BlockNeed& block : need.blocks) in_blocks += block.bytes;
        const BlockNeed &first = need.blocks.front(), &last = need.blocks.back();
        const bool home = plan.device_of(need.name, first.kind, 0) == d;
        bytes += home ? need.bytes - in_blocks + need.home : need.each;
        if (plan.device_of(need.name, last.kind, last.count - 1) == d) bytes += need.head;
        const bool stays = need.phase != Phase::Encode && phase != Phase::Encode;
        if (stays) resident += bytes;
        if (home && need.phase != Phase::Encode && phase == Phase::Encode) turn = std::max(turn, 2 * need.home);
        if (need.phase == phase) turn = std::max(turn, need.activation + (stays ? 0 : bytes));
      }
      expected[phase] = device.assignments.empty() ? 0 : device.room.driver_bytes + resident + turn;
      CHECK(device.peak[phase] == expected[phase]);
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("plan");

TEST_CASE("every block of every component is assigned once, on the one device") {
  const Plan plan = make_plan(components(), {room(81920 * kMiB)});
  CHECK(plan.fits());
  CHECK(plan.mode == "single");
  CHECK(plan.mode_reason == "one device");
  REQUIRE(plan.devices.size() == 1);
  const std::vector<Assignment>& assigned = plan.devices[0].assignments;
  std::size_t next = 0;
  for (const ComponentNeed& component : components()) {
    for (const BlockNeed& block : component.blocks) {
      REQUIRE(next < assigned.size());
      const Assignment& a = assigned[next++];
      CHECK(a.component == component.name);
      CHECK(a.kind == block.kind);
      CHECK(a.first == 0);
      CHECK(a.last == block.count - 1);
      CHECK(a.blocks == block.count);
      CHECK(a.bytes == block.bytes);
      CHECK_FALSE(a.streamed);
    }
  }
  CHECK(next == assigned.size());
}

TEST_CASE("a phase's peak is what lies on the device while it runs") {
  const PhaseBytes peak = make_plan(components(), {room(81920 * kMiB)}).devices[0].peak;
  // Encoders take turns; the diffusion model and the autoencoder stay together.
  CHECK(peak.encode == (512 + 9500 + 300) * kMiB);
  CHECK(peak.sample == (512 + 22500 + 110 + 900) * kMiB);
  CHECK(peak.decode == (512 + 22500 + 110 + 2500) * kMiB);
}

TEST_CASE("the encoder with the highest need counts, weights and activations together") {
  std::vector<ComponentNeed> needs = components();
  needs[0].activation = 9700 * kMiB;
  CHECK(make_plan(needs, {room(81920 * kMiB)}).devices[0].peak.encode == (512 + 250 + 9700) * kMiB);
}

TEST_CASE("no byte more in a component makes a phase smaller") {
  const PhaseBytes before = make_plan(components(), {room(81920 * kMiB)}).devices[0].peak;
  for (std::size_t i = 0; i < components().size(); ++i) {
    for (std::uint64_t ComponentNeed::*field : {&ComponentNeed::bytes, &ComponentNeed::activation}) {
      std::vector<ComponentNeed> needs = components();
      needs[i].*field += 64 * kMiB;
      const PhaseBytes after = make_plan(needs, {room(81920 * kMiB)}).devices[0].peak;
      for (const Phase phase : kPhases) CHECK(after[phase] >= before[phase]);
    }
  }
}

TEST_CASE("a job fits to the byte, and is refused one byte below") {
  const std::uint64_t need = make_plan(components(), {room(0)}).devices[0].peak.decode;
  CHECK(make_plan(components(), {room(need)}).fits());
  const Plan refused = make_plan(components(), {room(need - 1)});
  CHECK(refused.shortfall == "cuda:0 needs 25.0 GB to decode and may use 25.0 GB: 1 byte short");
  CHECK(refused.devices.size() == 1);  // the plan is there to be printed all the same
}

TEST_CASE("the shortfall names the phase that lacks most") {
  CHECK(make_plan(components(), {room(4096 * kMiB)}).shortfall ==
        "cuda:0 needs 25.0 GB to decode and may use 4.0 GB: 21.0 GB short");
  std::vector<ComponentNeed> needs = components();
  needs[3].activation = 0;
  CHECK(make_plan(needs, {room(4096 * kMiB)}).shortfall ==
        "cuda:0 needs 23.5 GB to sample and may use 4.0 GB: 19.5 GB short");
  needs[1].bytes = 40960 * kMiB;
  CHECK(make_plan(needs, {room(4096 * kMiB)}).shortfall ==
        "cuda:0 needs 40.8 GB to encode and may use 4.0 GB: 36.8 GB short");
}

// ---- Several devices ----

TEST_CASE("unequal blocks are given one by one, equal ones add up") {
  const BlockNeed equal{"layer", 3, 10};
  CHECK(equal.bytes_of(0) + equal.bytes_of(1) + equal.bytes_of(2) == 10);
  CHECK(equal.time_of(1) == 1.0);
  const BlockNeed unequal{"up", 2, 30, {10, 20}, {1.0, 0.5}};
  CHECK(unequal.bytes_of(1) == 20);
  CHECK(unequal.time_of(1) == 0.5);
}

TEST_CASE("one device suffices for one picture; several evaluations go over several") {
  const std::vector<DeviceRoom> two = rooms({81920 * kMiB, 81920 * kMiB});
  const Plan single = make_plan(components(), two);
  CHECK(single.mode == "single");
  CHECK(single.mode_reason ==
        "cuda:0 holds everything, and one picture at a time would be no faster on several devices; cuda:1 idle");
  CHECK(single.devices[1].assignments.empty());
  CHECK(single.devices[1].peak.sample == 0);
  const Plan shared = make_plan(components(), two, {.evaluations = 4});
  CHECK(shared.mode == "shard");
  CHECK(shared.mode_reason == "4 evaluations that do not wait for each other keep 2 devices busy");
  CHECK(ranges_of(shared, "unet") == "cuda:0 double 0-18, cuda:0 single 0-7, cuda:1 single 8-37");
  const Plan asked = make_plan(components(), two, {.mode = PlacementRequest::Mode::Shard});
  CHECK(ranges_of(asked, "unet") == ranges_of(shared, "unet"));
  CHECK(asked.mode_reason == "the job asks for it");
  const Plan alone = make_plan(components(), two, {.mode = PlacementRequest::Mode::Single, .evaluations = 4});
  CHECK(alone.mode == "single");
  CHECK(alone.mode_reason == "the job asks for one device; cuda:1 idle");
  CHECK(make_plan(components(), {two[0]}, {.mode = PlacementRequest::Mode::Shard}).mode == "single");
}

TEST_CASE("what no device holds alone is cut, and an encoder too") {
  const Plan plan = make_plan(components(), rooms(std::vector<std::uint64_t>(4, 8192 * kMiB)));
  CHECK(plan.fits());
  CHECK(plan.mode == "shard");
  CHECK(plan.mode_reason == "no device alone holds it");
  CHECK(ranges_of(plan, "unet") ==
        "cuda:0 double 0-8, cuda:1 double 9-18, cuda:1 single 0-0, cuda:2 single 1-17, cuda:3 single 18-37");
  CHECK(ranges_of(plan, "clip_l") == "cuda:0 layer 0-11");
  CHECK(ranges_of(plan, "t5xxl") == "cuda:0 layer 0-5, cuda:1 layer 6-11, cuda:2 layer 12-17, cuda:3 layer 18-23");
  CHECK(ranges_of(plan, "vae") == "cuda:2 level 0-3");
  CHECK(plan.device_of("unet", "single", 0) == 1);
  CHECK(plan.device_of("unet", "single", 1) == 2);
  CHECK(plan.device_of("vae", "level", 0) == 2);  // whose share takes less time
  CHECK(plan.devices[0].time == 9.0);
  CHECK(plan.devices[2].time == 17.0);  // and the decodes
}

TEST_CASE("unequal rooms and speeds get unequal shares") {
  const Plan rooms_differ = make_plan(components(), rooms({8192 * kMiB, 24576 * kMiB}));
  CHECK(rooms_differ.fits());
  CHECK(ranges_of(rooms_differ, "unet") == "cuda:0 double 0-6, cuda:1 double 7-18, cuda:1 single 0-37");
  std::vector<DeviceRoom> speeds = rooms({49152 * kMiB, 49152 * kMiB, 49152 * kMiB});
  speeds[1].speed = 0.5;
  const Plan speeds_differ = make_plan(components(), speeds, {.evaluations = 8});
  // 57 blocks and the decodes, as long as 2.85 of them, over 2.5 speeds: 23.9, 12.0 and 23.9.
  CHECK(fmt::format("{}", fmt::join(blocks_of(speeds_differ), " ")) == "21 12 24");
  CHECK(ranges_of(speeds_differ, "t5xxl") == "cuda:0 layer 0-23");  // the fastest, and the first of equals
}

TEST_CASE("a UNet's down and up blocks that share a skip share a device, the middle goes with the innermost") {
  const Plan plan = make_plan(unet(), rooms({2048 * kMiB, 2048 * kMiB, 2048 * kMiB}), {.evaluations = 2});
  CHECK(plan.fits());
  CHECK(ranges_of(plan, "unet") ==
        "cuda:0 down 0-1, cuda:0 up 4-5, cuda:1 down 2-3, cuda:1 up 2-3, cuda:2 down 4-5, cuda:2 middle 0-0, cuda:2 up "
        "0-1");
  for (int i = 0; i < 6; ++i) CHECK(plan.device_of("unet", "down", i) == plan.device_of("unet", "up", 5 - i));
}

TEST_CASE("stem and head weigh on the devices of the first and last block") {
  std::vector<ComponentNeed> needs = {components()[2]};
  needs[0].head = 300 * kMiB;  // and 200 MiB before the first block
  const Plan plan = make_plan(needs, rooms({24576 * kMiB, 24576 * kMiB}), {.evaluations = 2});
  std::vector<std::uint64_t> weights;
  for (const PlannedDevice& device : plan.devices) {
    weights.push_back(512 * kMiB + 900 * kMiB);
    for (const Assignment& a : device.assignments) weights.back() += a.bytes;
  }
  CHECK(plan.devices[0].peak.sample == weights[0] + 200 * kMiB);
  CHECK(plan.devices[1].peak.sample == weights[1] + 300 * kMiB);
  needs = unet();
  needs[0].bytes += 150 * kMiB;
  needs[0].head += 50 * kMiB;
  const auto peaks = [](const Plan& p) { return p.devices[1].peak.sample; };
  const std::vector<DeviceRoom> two = rooms({4096 * kMiB, 4096 * kMiB});
  CHECK(peaks(make_plan(needs, two, {.evaluations = 2})) == peaks(make_plan(unet(), two, {.evaluations = 2})));
}

TEST_CASE("passes and texts that are on their way weigh where they wait") {
  std::vector<ComponentNeed> needs = unet();
  needs[0].passing = 10 * kMiB;
  needs[0].blocks.front().of_pass.assign(6, 5 * kMiB);
  needs[0].blocks.front().of_text.assign(6, 2 * kMiB);
  const std::vector<DeviceRoom> two = rooms({4096 * kMiB, 4096 * kMiB});
  for (const std::int64_t evaluations : {1, 2, 3, 100}) {
    CAPTURE(evaluations);
    PlacementRequest request{.mode = PlacementRequest::Mode::Shard, .evaluations = evaluations};
    const Plan plan = make_plan(needs, two, request), bare = make_plan(unet(), two, request);
    // Four stages, since all but the innermost pair's device is passed twice, and one waits.
    const auto passes = static_cast<std::uint64_t>(std::min<std::int64_t>(4, evaluations));
    CHECK(plan.passes_at_once == static_cast<std::int64_t>(passes));
    for (std::size_t d = 0; d < 2; ++d) {
      REQUIRE(blocks_of(plan) == blocks_of(bare));
      const auto downs = static_cast<std::uint64_t>(plan.devices[d].assignments.front().blocks);
      const std::uint64_t pass = (10 + 5 * downs) * kMiB, text = 2 * downs * kMiB;
      CHECK(plan.devices[d].peak.sample == bare.devices[d].peak.sample + (passes - 1) * pass + passes * text);
      const auto others = std::min(passes, static_cast<std::uint64_t>(evaluations - 1));
      CHECK(plan.devices[d].peak.decode == bare.devices[d].peak.decode + others * (pass + text));
    }
  }
  // One device alone takes pass after pass: it keeps its run's texts, and none of it when it decodes.
  const Plan alone = make_plan(needs, rooms({4096 * kMiB}), {.evaluations = 100, .texts_a_run = 3});
  const Plan bare = make_plan(unet(), rooms({4096 * kMiB}), {.evaluations = 100});
  CHECK(alone.devices[0].peak.sample == bare.devices[0].peak.sample + 3 * 6 * 2 * kMiB);
  CHECK(alone.devices[0].peak.decode == bare.devices[0].peak.decode);
}

TEST_CASE("the image encoder lies with its decoder") {
  std::vector<ComponentNeed> needs = components();
  CodingNeed coding;
  coding.on_gpu.moments.resize(1);
  needs.back().coding = {coding};
  ComponentNeed encoder = needs.back();
  encoder.phase = Phase::Encode;
  encoder.blocks.front().kind = "encoder level";
  needs.push_back(encoder);
  std::set<std::size_t> homes;
  for (const std::uint64_t first : {10, 14, 18, 24, 40})
    for (const std::uint64_t second : {10, 14, 18, 24, 40})
      for (const std::int64_t evaluations : {1, 8}) {
        CAPTURE(first);
        CAPTURE(second);
        const Plan plan = make_plan(needs, rooms({first * 1024 * kMiB, second * 1024 * kMiB}),
                                    {.mode = PlacementRequest::Mode::Shard, .evaluations = evaluations});
        homes.insert(plan.device_of("vae", "level", 0));
        CHECK(plan.device_of("vae", "encoder level", 0) == plan.device_of("vae", "level", 0));
      }
  CHECK(homes.size() == 2);
}

TEST_CASE("where memory is short there are fewer passes at once") {
  std::vector<ComponentNeed> needs = unet();
  needs[0].passing = 100 * kMiB;
  const auto plan_of = [&](std::uint64_t mib) {
    return make_plan(needs, rooms({mib * kMiB, mib * kMiB}), {.evaluations = 100});
  };
  std::vector<std::int64_t> passes;  // at once, with less and less memory
  for (std::uint64_t mib = 4096;; mib -= 10) {
    const Plan plan = plan_of(mib);
    if (passes.empty() || passes.back() != plan.passes_at_once) passes.push_back(plan.passes_at_once);
    const bool says = plan.mode_reason.ends_with(
        fmt::format("; no more than {} passes at once, for want of memory", plan.passes_at_once));
    CHECK(says == (plan.fits() && plan.passes_at_once < 4));
    if (!plan.fits()) break;
  }
  CHECK(passes == std::vector<std::int64_t>{4, 2, 1});
}

TEST_CASE("what does not fit says who lacks what, and what lacks least is shown") {
  const Plan plan = make_plan(components(), rooms({6144 * kMiB, 6144 * kMiB}));
  CHECK_FALSE(plan.fits());
  REQUIRE(plan.devices.size() == 2);
  CHECK(plan.lacking_bytes() > 0);
  // So many more bytes on each device are what it takes, and no byte less.
  const std::uint64_t enough = 6144 * kMiB + plan.lacking_bytes();
  CHECK(make_plan(components(), rooms({enough, enough})).fits());
  CHECK_FALSE(make_plan(components(), rooms({enough - 1, enough - 1})).fits());
  CHECK(plan.shortfall.find("cuda:0 needs ") == 0);
  CHECK(plan.shortfall.find("; cuda:1 needs ") != std::string::npos);
  for (const Shortfall& lack : plan.shortfalls) {
    const auto device = std::ranges::find_if(plan.devices, [&](const auto& d) { return d.room.id == lack.device; });
    CHECK(device->peak[lack.phase] - device->room.limit_bytes == lack.bytes);
  }
}

TEST_CASE("what every device holds a copy of counts on each, what lies at home on the first") {
  std::vector<ComponentNeed> needs = components();
  const std::vector<DeviceRoom> devices = rooms({80000 * kMiB, 80000 * kMiB, 80000 * kMiB});
  const PlacementRequest shard{.mode = PlacementRequest::Mode::Shard};
  const Plan before = make_plan(needs, devices, shard);
  needs[2].each = 7 * kMiB;
  needs[2].home = 5 * kMiB;
  const Plan after = make_plan(needs, devices, shard);
  CHECK(summary(before) == summary(after));
  for (std::size_t d = 0; d < 3; ++d) {
    CHECK(after.devices[d].peak.sample - before.devices[d].peak.sample == (d == 0 ? 5 : 7) * kMiB);
    CHECK(after.devices[d].peak.decode - before.devices[d].peak.decode == (d == 0 ? 5 : 7) * kMiB);
    CHECK(after.devices[d].peak.encode == before.devices[d].peak.encode);
  }
}

TEST_CASE("CPU devices have activations of their own") {
  std::vector<ComponentNeed> needs = components();
  needs[2].activation_on_cpu = needs[2].activation + 100 * kMiB;
  std::vector<DeviceRoom> devices = {room(80000 * kMiB)};
  const std::uint64_t on_gpu = make_plan(needs, devices).devices[0].peak.sample;
  devices[0].id = DeviceId::cpu(0);
  CHECK(make_plan(needs, devices).devices[0].peak.sample == on_gpu + 100 * kMiB);
  CHECK(make_plan(components(), devices).devices[0].peak.sample == on_gpu);
}

// ---- Properties ----

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
    CHECK(summary(make_plan(needs, devices, request)) == summary(plan));
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
    if (unet.mirrored) longest *= 3;  // down, up and middle move together
    for (std::size_t d = 0; d < count; ++d) {
      least = std::min(least, plan.devices[d].time);
      most = std::max(most, plan.devices[d].time);
      // Unequal blocks in a fixed order: neighbours differ by no more than the block between them.
      if (d > 0) CHECK(std::abs(plan.devices[d].time - plan.devices[d - 1].time) <= longest + 1e-9);
    }
    if (unet.blocks.front().times.empty()) CHECK(most - least <= longest);
  }
}

TEST_CASE("a plan for 16 devices takes no time to speak of") {
  const auto start = std::chrono::steady_clock::now();
  CHECK(make_plan(components(), rooms(std::vector<std::uint64_t>(16, 4096 * kMiB))).fits());
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("phases by name and by number") {
  PhaseBytes bytes;
  for (const Phase phase : kPhases) bytes[phase] = static_cast<std::uint64_t>(phase) + 1;
  CHECK(bytes.encode == 1);
  CHECK(bytes.sample == 2);
  CHECK(bytes.decode == 3);
  CHECK(name_of(Phase::Encode) == "encode");
  CHECK(name_of(Phase::Sample) == "sample");
  CHECK(name_of(Phase::Decode) == "decode");
}

TEST_SUITE_END();
