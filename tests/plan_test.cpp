#include "shard/plan.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace mgpu;

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::vector<ComponentNeed> components() {
  return {
      {"clip_l", Phase::Encode, {{"layer", 12, 200 * kMiB}}, 250 * kMiB, 10 * kMiB},
      {"t5xxl", Phase::Encode, {{"layer", 24, 9000 * kMiB}}, 9500 * kMiB, 300 * kMiB},
      {"unet", Phase::Sample, {{"double", 19, 12000 * kMiB}, {"single", 38, 10000 * kMiB}}, 22500 * kMiB, 900 * kMiB},
      {"vae", Phase::Decode, {{"level", 4, 100 * kMiB}}, 110 * kMiB, 2500 * kMiB}};
}

DeviceRoom room(std::uint64_t limit) {
  DeviceRoom out;
  out.id = DeviceId::cuda(0);
  out.total_bytes = 81920 * kMiB;
  out.limit_bytes = limit;
  out.driver_bytes = 512 * kMiB;
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
