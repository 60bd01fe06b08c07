#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "shard/make_plan.h"
#include "shard/offload.h"
#include "shard/plan.h"
#include "tests/plan_cases.h"

using namespace mgpu;
using namespace mgpu::test;

TEST_SUITE_BEGIN("streaming_plan");

namespace {

/// The Flux-like job; a quarter of each block serves only before the steps.
std::vector<ComponentNeed> components_with_precomputed() {
  std::vector<ComponentNeed> out = components();
  for (BlockNeed& kind : out[2].blocks)
    for (int i = 0; i < kind.count; ++i) kind.precomputed.push_back(kind.bytes_of(i) / 4);
  out[2].precompute_activation = 200 * kMiB;
  return out;
}

Plan streamed(const std::vector<std::uint64_t>& limits, const char* unet = nullptr) {
  PlacementRequest request{.donors = {main_memory(65536 * kMiB)}};
  if (unet) request.allocation["unet"] = parse_allocation(unet);
  return make_plan(components_with_precomputed(), rooms(limits), request);
}

int streamed_blocks(const Plan& plan) {
  int out = 0;
  for (const PlannedDevice& device : plan.devices)
    for (const Assignment& a : device.assignments) out += a.streamed ? a.blocks : 0;
  return out;
}

}  // namespace

TEST_CASE("a loan is spread evenly, and comes to about what was wanted") {
  const std::vector<OffloadableBlock> equal(12, {100});
  const DonorShare half{DeviceId::cpu(), 600.0};
  const OffloadedBlocks offload = spread_offload(equal, {&half, 1});
  CHECK(offload.bytes == 600);
  CHECK(offload.ring == 200);
  CHECK(offload.freed() == 400);
  for (std::size_t i = 0; i + 1 < 12; ++i)
    CHECK(offload.donor_of(i).has_value() != offload.donor_of(i + 1).has_value());
  const DonorShare nothing{DeviceId::cpu(), 0.0};
  CHECK(spread_offload(equal, {&nothing, 1}).bytes == 0);
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<OffloadableBlock> blocks(random() % 60 + 1);
    std::uint64_t total = 0;
    for (OffloadableBlock& block : blocks) {
      block = {random() % 3 == 0 ? std::uint64_t{700} : 300, static_cast<double>(random() % 5 + 1)};
      total += block.bytes;
    }
    const double first = static_cast<double>(random() % (total / 2 + 1)),
                 second = static_cast<double>(random() % (total / 2 + 1));
    const std::vector<DonorShare> shares = {{DeviceId::cpu(), first}, {DeviceId::cuda(3), second}};
    const OffloadedBlocks two = spread_offload(blocks, shares);
    std::uint64_t to_first = 0, offloaded = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      to_first += two.donor_of(i) == DeviceId::cpu() ? blocks[i].bytes : 0;
      offloaded += two.donor_of(i) ? blocks[i].bytes : 0;
    }
    CHECK(two.bytes == offloaded);
    CHECK(std::abs(static_cast<double>(to_first) - first) <= 1400.0);
    CHECK(std::abs(static_cast<double>(offloaded - to_first) - second) <= 1400.0);
  }
}

TEST_CASE("a loan asks as much of the link in any stretch of time, whatever the blocks weigh") {
  // As Flux: heavy blocks, then light ones, that take as long.
  std::vector<OffloadableBlock> blocks(19, {432, 1.0});
  blocks.resize(57, {216, 1.0});
  for (const double part : {0.2, 0.5, 0.7}) {
    const DonorShare share{DeviceId::cpu(), part * (19 * 432 + 38 * 216)};
    const OffloadedBlocks offload = spread_offload(blocks, {&share, 1});
    double offloaded = 0.0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      offloaded += offload.donor_of(i) ? static_cast<double>(blocks[i].bytes) : 0.0;
      CHECK(std::abs(offloaded - share.bytes * static_cast<double>(i + 1) / 57.0) <= 432.0);
    }
  }
  // Light blocks are lent whole before heavy ones are lent more often than time would have it.
  const DonorShare most{DeviceId::cpu(), 0.9 * (19 * 432 + 38 * 216)};
  const OffloadedBlocks offload = spread_offload(blocks, {&most, 1});
  for (std::size_t i = 21; i < blocks.size(); ++i) CHECK(offload.donor_of(i).has_value());
}

TEST_CASE("the smallest loan that frees enough, or the one that frees most") {
  const std::vector<OffloadableBlock> blocks(10, {100});
  for (std::uint64_t wanted = 1; wanted <= 800; wanted += 7) {
    const OffloadedBlocks offload = offload_that_frees(blocks, DeviceId::cpu(), wanted);
    CHECK(offload.freed() >= wanted);
    CHECK(offload.freed() < wanted + 100);
  }
  CHECK(offload_that_frees(blocks, DeviceId::cpu(), 801).freed() == 800);
  // Two heavy blocks, lent too, would ask for a ring of their size: it is more than they weigh.
  std::vector<OffloadableBlock> mixed(10, {100});
  mixed.resize(12, {1000});
  const OffloadedBlocks light = offload_that_frees(mixed, DeviceId::cpu(), 801);
  CHECK(light.freed() == 1000);  // all of them: 3000 less a ring of 2000
  mixed.resize(11);
  CHECK(offload_that_frees(mixed, DeviceId::cpu(), 801).freed() == 800);
  CHECK_FALSE(offload_that_frees(mixed, DeviceId::cpu(), 801).donor_of(10).has_value());
}

TEST_CASE("the means of saving memory come in turn: all kept, nothing kept ahead, streamed") {
  const Plan roomy = streamed({32768 * kMiB});
  CHECK(roomy.keeps_precomputed);
  CHECK(roomy.donors.empty());
  // 22500 MiB, of which 5500 serve only before the steps.
  const Plan tight = streamed({20480 * kMiB});
  CHECK(tight.fits());
  CHECK_FALSE(tight.keeps_precomputed);
  CHECK(streamed_blocks(tight) == 0);
  CHECK(tight.mode_reason == "one device; 5.4 GB that serve only before the steps are read before runs begin");
  std::uint64_t precomputed = 0;
  const std::vector<ComponentNeed> needs = components_with_precomputed();
  for (const BlockNeed& kind : needs[2].blocks)
    precomputed = std::accumulate(kind.precomputed.begin(), kind.precomputed.end(), precomputed);
  CHECK(tight.devices[0].peak.sample == (512 + 22500 + 110 + 900) * kMiB - precomputed);
  const Plan tighter = streamed({12288 * kMiB});
  CHECK(tighter.fits());
  CHECK_FALSE(tighter.keeps_precomputed);
  CHECK(tighter.mode == "single");
  CHECK(tighter.mode_reason ==
        "one device; 5.4 GB that serve only before the steps are read before runs begin; 8.8 GB of the unet streamed "
        "from cpu");
  REQUIRE(tighter.donors.size() == 1);
  CHECK(tighter.donors[0].offloaded.encode == 0);
  CHECK(tighter.donors[0].offloaded.sample == tighter.streamed_bytes("unet").at("cpu"));
  CHECK(tighter.devices[0].peak.decode <= 12288 * kMiB);
  CHECK(tighter.devices[0].peak.decode > 12288 * kMiB * 9 / 10);  // no more is streamed than need be
}

TEST_CASE("a device alone whose encoder is streamed, and not its diffusion model, takes pass after pass") {
  std::vector<ComponentNeed> needs = components();
  PlacementRequest request{.evaluations = 100, .donors = {main_memory(65536 * kMiB)}};
  const auto streams = [](const Plan& plan, const char* component) { return !plan.streamed_bytes(component).empty(); };
  request.allocation["t5xxl"] = parse_allocation("cuda:0,50%;cpu,50%");
  const Plan encoder = make_plan(needs, rooms({32768 * kMiB}), request);
  CHECK(streams(encoder, "t5xxl"));
  CHECK_FALSE(streams(encoder, "unet"));
  CHECK(encoder.passes_at_once == 1);
  request.allocation["unet"] = parse_allocation("cuda:0,50%;cpu,50%");
  const Plan both = make_plan(needs, rooms({32768 * kMiB}), request);
  CHECK(streams(both, "unet"));
  CHECK(both.passes_at_once == 4);
}

TEST_CASE("a device with little memory takes its share and streams, where passes flow") {
  const auto plan_of = [](std::int64_t evaluations, std::optional<DecodeMode> mode = {}) {
    return make_plan(components(), rooms({8192 * kMiB, 24576 * kMiB}),
                     {.evaluations = evaluations,
                      .passes_a_run = std::min<std::int64_t>(evaluations, 2),
                      .decode_mode = mode,
                      .donors = {main_memory(65536 * kMiB)}});
  };
  const Plan many = plan_of(8);
  CHECK_FALSE(many.streamed_bytes("unet").empty());
  CHECK(many.devices[0].time == 30.0);
  CHECK(many.devices[1].time == 27.0);
  CHECK(many.pass_time < 0.62 * 57);  // the risk of a slow link counts
  // One picture gains nothing from a second device, and the large one holds all blocks.
  CHECK(plan_of(1).streamed_bytes("unet").empty());
  CHECK(plan_of(1).devices[1].time == 57.0);
  // With a negative prompt each device has a pass: half of the blocks on each, streamed, take less than 43 on one.
  CHECK(plan_of(2).pass_time < 0.7 * plan_of(1).pass_time);
}

TEST_CASE("where an allocation lends blocks, what serves only before the steps stays if there is room") {
  const Plan roomy = streamed({49152 * kMiB}, "cuda:0,50%;cpu,50%");
  const Plan tight = streamed({16384 * kMiB}, "cuda:0,50%;cpu,50%");
  CHECK(roomy.fits());
  CHECK(tight.fits());
  CHECK(roomy.keeps_precomputed);
  CHECK_FALSE(tight.keeps_precomputed);
  CHECK(roomy.mode_reason == "one device; 8.2 GB of the unet streamed from cpu");
  // Half of what every step reads is lent in either case.
  CHECK(ranges_of(roomy, "unet") == ranges_of(tight, "unet"));
  CHECK(roomy.streamed_bytes("unet") == tight.streamed_bytes("unet"));
  CHECK(roomy.donors[0].offloaded.sample == tight.donors[0].offloaded.sample);
  std::uint64_t precomputed = 0;
  const std::vector<ComponentNeed> needs = components_with_precomputed();
  for (const BlockNeed& kind : needs[2].blocks)
    precomputed = std::accumulate(kind.precomputed.begin(), kind.precomputed.end(), precomputed);
  CHECK(roomy.devices[0].peak.sample - tight.devices[0].peak.sample == precomputed);
  // An amount in bytes is all that the device gives.
  CHECK_FALSE(streamed({49152 * kMiB}, "cuda:0,8gb;cpu,*").keeps_precomputed);
  CHECK(streamed({49152 * kMiB}, "#cuda:0;4;cpu").keeps_precomputed);
}

TEST_CASE("devices that hold less share the work more evenly") {
  PlacementRequest request{.donors = {main_memory(65536 * kMiB)}};
  const std::vector<DeviceRoom> four = rooms(std::vector<std::uint64_t>(4, 8192 * kMiB));
  const auto slowest = [](const Plan& plan) {
    double out = 0.0;
    for (const PlannedDevice& device : plan.devices) out = std::max(out, device.time);
    return out;
  };
  const Plan one = make_plan(components_with_precomputed(), four, request);
  CHECK(one.keeps_precomputed);  // one picture would gain nothing
  request.evaluations = 8;
  const Plan many = make_plan(components_with_precomputed(), four, request);
  CHECK_FALSE(many.keeps_precomputed);
  CHECK(slowest(many) < 0.95 * slowest(one));
  // With room enough the work is even anyway.
  CHECK(make_plan(components_with_precomputed(), rooms(std::vector<std::uint64_t>(4, 32768 * kMiB)), request)
            .keeps_precomputed);
}

TEST_CASE("an encoder that finds no room on any card is streamed too, and devices share what is") {
  const Plan plan = streamed({6144 * kMiB, 6144 * kMiB});
  CHECK(plan.fits());
  CHECK(plan.mode == "shard");
  CHECK(plan.streamed_bytes("t5xxl").empty());  // cut over the two
  for (const PlannedDevice& device : plan.devices)
    CHECK(std::ranges::any_of(device.assignments, &Assignment::streamed));
  const Plan one = streamed({5120 * kMiB});
  CHECK(one.fits());
  CHECK(one.streamed_bytes("t5xxl").at("cpu") > 0);
  CHECK(one.donors[0].offloaded.encode == one.streamed_bytes("t5xxl").at("cpu"));
}

TEST_CASE("main memory that is short does not help: the device's own shortfall is told") {
  const PlacementRequest request{.donors = {main_memory(1024 * kMiB)}};
  const Plan plan = make_plan(components_with_precomputed(), rooms({12288 * kMiB}), request);
  CHECK_FALSE(plan.fits());
  CHECK(plan.shortfall == "cuda:0 needs 19.7 GB to decode and may use 12.0 GB: 7.7 GB short");
}

TEST_CASE("an allocation's donors lend to the device before them, else to the first") {
  const std::vector<std::uint64_t> two = {49152 * kMiB, 49152 * kMiB};
  CHECK(ranges_of(streamed(two, "cuda:0,25%;cpu,25%;cuda:1,50%"), "unet") ==
        "cuda:0 double 0-0*, cuda:0 double 1-1, cuda:0 double 2-2*, cuda:0 double 3-3, cuda:0 double 4-4*, "
        "cuda:0 double 5-5, cuda:0 double 6-6*, cuda:0 double 7-7, cuda:0 double 8-8*, cuda:0 double 9-9, "
        "cuda:0 double 10-10*, cuda:0 double 11-11, cuda:0 double 12-12*, cuda:0 double 13-13, cuda:0 double 14-14*, "
        "cuda:0 double 15-15, cuda:0 double 16-16*, cuda:1 double 17-18, cuda:1 single 0-37");
  const Plan leading = streamed(two, "cpu,20%;cuda:1,30%;cuda:0,50%");
  for (const Assignment& a : leading.devices[0].assignments) CHECK_FALSE(a.streamed);
  CHECK(leading.streamed_bytes("unet").at("cpu") > 0);
  // Capacities: four GiB stay, the rest comes from main memory.
  const Plan capacity = streamed({49152 * kMiB}, "cuda:0,4gb;cpu,*");
  CHECK(capacity.fits());
  const std::uint64_t offloaded = capacity.streamed_bytes("unet").at("cpu");
  CHECK(offloaded > (17000 - 4096 - 900) * kMiB);
  CHECK(offloaded < (17000 - 4096 + 900) * kMiB);
}

TEST_CASE("under a tail its device computes all, and the others lend") {
  const std::vector<std::uint64_t> two = {49152 * kMiB, 49152 * kMiB};
  const Plan expert = streamed(two, "cuda:0,60%;cuda:1,40%#cuda:0");
  CHECK(expert.devices[0].time == 57.0);
  CHECK(expert.devices[1].time == 0.0);
  const std::uint64_t offloaded = expert.streamed_bytes("unet").at("cuda:1");
  CHECK(expert.donors.empty());  // it has a row of its own among the devices
  CHECK(expert.devices[1].peak.sample >= offloaded);
  const Plan virtual_vram = streamed(two, "#cuda:0;4;cpu");
  const std::uint64_t moved = virtual_vram.streamed_bytes("unet").at("cpu");
  CHECK(moved > 3500 * kMiB);
  CHECK(moved < 4700 * kMiB);
  CHECK(virtual_vram.streamed_bytes("unet").size() == 1);
}

TEST_CASE("with main memory to lend, more jobs fit, and none that fitted is refused") {
  std::mt19937_64 random(7);
  int helped = 0;
  for (int round = 0; round < 200; ++round) {
    CAPTURE(round);
    std::vector<std::uint64_t> limits(random() % 4 + 1);
    for (std::uint64_t& limit : limits) limit = (2048 + random() % 20000) * kMiB;
    const bool before = make_plan(components_with_precomputed(), rooms(limits)).fits();
    const Plan plan = streamed(limits);
    if (before) CHECK(plan.fits());
    if (before) CHECK(streamed_blocks(plan) == 0);
    if (!plan.fits()) continue;
    helped += !before;
    for (const PlannedDevice& device : plan.devices)
      for (const Phase phase : kPhases) CHECK(device.peak[phase] <= device.room.limit_bytes);
  }
  CHECK(helped > 40);
}

TEST_SUITE_END();
