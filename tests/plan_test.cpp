#include "shard/plan.h"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "shard/make_plan.h"
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
  // One device holds all blocks beside the other's autoencoder: no pass is handed on.
  CHECK(ranges_of(rooms_differ, "unet") == "cuda:1 double 0-18, cuda:1 single 0-37");
  CHECK(ranges_of(rooms_differ, "vae") == "cuda:0 level 0-3");
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
  needs[0].pass_bytes = 10 * kMiB;
  needs[0].blocks.front().bytes_per_pass.assign(6, 5 * kMiB);
  needs[0].blocks.front().bytes_per_prompt.assign(6, 2 * kMiB);
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
  // Runs that are told the same share what comes of it.
  for (const std::int64_t texts : {1, 2}) {
    const Plan plan = make_plan(
        needs, two, {.mode = PlacementRequest::Mode::Shard, .evaluations = 100, .texts_a_run = 2, .texts = texts});
    const Plan bare = make_plan(unet(), two, {.mode = PlacementRequest::Mode::Shard, .evaluations = 100});
    const auto downs = static_cast<std::uint64_t>(plan.devices[0].assignments.front().blocks);
    const std::uint64_t pass = (10 + 5 * downs) * kMiB, text = 2 * downs * kMiB;
    const auto kept = static_cast<std::uint64_t>(texts) * text;
    CHECK(plan.devices[0].peak.sample == bare.devices[0].peak.sample + 3 * pass + kept);
    CHECK(plan.devices[0].peak.decode == bare.devices[0].peak.decode + 4 * pass + kept);
  }
  // One device alone takes pass after pass: it keeps its run's texts, and none of it when it decodes.
  const Plan alone = make_plan(needs, rooms({4096 * kMiB}), {.evaluations = 100, .texts_a_run = 3});
  const Plan bare = make_plan(unet(), rooms({4096 * kMiB}), {.evaluations = 100});
  CHECK(alone.devices[0].peak.sample == bare.devices[0].peak.sample + 3 * 6 * 2 * kMiB);
  CHECK(alone.devices[0].peak.decode == bare.devices[0].peak.decode);
  const Plan same = make_plan(needs, rooms({4096 * kMiB}), {.evaluations = 100, .texts_a_run = 3, .texts = 1});
  CHECK(same.devices[0].peak.sample == bare.devices[0].peak.sample + 6 * 2 * kMiB);
}

TEST_CASE("the image encoder lies with its decoder") {
  std::vector<ComponentNeed> needs = components();
  DecodeNeed mode;
  mode.on_gpu.moments.resize(1);
  needs.back().modes = {mode};
  ComponentNeed encoder = needs.back();
  encoder.phase = Phase::Encode;
  encoder.blocks.front().kind = "encoder level";
  needs.push_back(encoder);
  std::set<std::size_t> vae_devices;
  for (const std::uint64_t first : {10, 14, 18, 24, 40})
    for (const std::uint64_t second : {10, 14, 18, 24, 40})
      for (const std::int64_t evaluations : {1, 8}) {
        CAPTURE(first);
        CAPTURE(second);
        const Plan plan = make_plan(needs, rooms({first * 1024 * kMiB, second * 1024 * kMiB}),
                                    {.mode = PlacementRequest::Mode::Shard, .evaluations = evaluations});
        vae_devices.insert(plan.device_of("vae", "level", 0));
        CHECK(plan.device_of("vae", "encoder level", 0) == plan.device_of("vae", "level", 0));
      }
  CHECK(vae_devices.size() == 2);
}

TEST_CASE("where memory is short there are fewer passes at once") {
  std::vector<ComponentNeed> needs = unet();
  needs[0].pass_bytes = 100 * kMiB;
  const auto plan_of = [&](std::uint64_t mib) {
    return make_plan(needs, rooms({mib * kMiB, mib * kMiB}), {.evaluations = 100});
  };
  std::vector<std::int64_t> passes;  // at once, with less and less memory
  double time = 0.0;
  for (std::uint64_t mib = 4096;; mib -= 10) {
    const Plan plan = plan_of(mib);
    if (passes.empty() || passes.back() != plan.passes_at_once) passes.push_back(plan.passes_at_once);
    const bool says = plan.mode_reason.ends_with(
        fmt::format("; no more than {} passes at once, for want of memory", plan.passes_at_once));
    CHECK(says == (plan.fits() && plan.passes_at_once < 4));
    if (!plan.fits()) break;
    CHECK(plan.pass_time >= time);
    time = plan.pass_time;
  }
  // Two passes over an even cut are faster than four over one that leaves them room.
  CHECK(passes == std::vector<std::int64_t>{4, 2, 4, 2, 1});
}

TEST_CASE("passes go in even waves, that the last may keep all devices at work") {
  const std::vector<DeviceRoom> two = rooms({65536 * kMiB, 65536 * kMiB}), one = rooms({65536 * kMiB});
  const auto at_once = [](const std::vector<DeviceRoom>& devices, const PlacementRequest& request) {
    return make_plan(unet(), devices, request).passes_at_once;
  };
  const std::vector<std::int64_t> evaluations = {1, 2, 3, 4, 5, 7, 8, 9, 12, 17, 100};
  std::vector<std::int64_t> resident, streaming, streaming_alone;
  for (const std::int64_t count : evaluations) {
    CHECK(at_once(one, {.evaluations = count}) == 1);
    PlacementRequest request{.mode = PlacementRequest::Mode::Shard, .evaluations = count};
    resident.push_back(at_once(two, request));
    request.donors = {main_memory(65536 * kMiB)};
    request.allocation["unet"] = parse_allocation("cuda:0,40%;cpu,20%;cuda:1,40%");
    streaming.push_back(at_once(two, request));
    request.allocation["unet"] = parse_allocation("cuda:0,40%;cpu,60%");
    streaming_alone.push_back(at_once(one, request));
  }
  CHECK(resident == std::vector<std::int64_t>{1, 2, 3, 4, 5, 7, 4, 5, 4, 5, 4});
  CHECK(streaming == std::vector<std::int64_t>{1, 2, 3, 4, 5, 7, 8, 5, 6, 6, 8});
  CHECK(streaming_alone == std::vector<std::int64_t>{1, 2, 3, 4, 3, 4, 4, 3, 4, 4, 4});
  // A batch and its conditionings share what is streamed, however many they are.
  PlacementRequest batch{.evaluations = 32, .passes_a_run = 16, .donors = {main_memory(65536 * kMiB)}};
  batch.allocation["unet"] = parse_allocation("cuda:0,40%;cpu,60%");
  CHECK(at_once(one, batch) == 16);
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
  needs[2].replicated_bytes = 7 * kMiB;
  needs[2].latent_device_bytes = 5 * kMiB;
  const Plan after = make_plan(needs, devices, shard);
  CHECK(summary_of(before) == summary_of(after));
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
