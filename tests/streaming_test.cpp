#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "core/host_memory.h"
#include "core/models/flux.h"
#include "core/models/unet.h"
#include "shard/block_stream.h"
#include "shard/engine.h"
#include "shard/make_plan.h"
#include "shard/needs.h"
#include "tests/model_sets.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("streaming");

namespace {

DeviceRoom cpu_room(int index) {
  DeviceRoom out;
  out.id = DeviceId::cpu(index);
  out.total_bytes = out.limit_bytes = std::uint64_t{64} << 30;
  return out;
}

/// An engine on so many virtual CPU devices, the diffusion model placed as the allocation says.
std::unique_ptr<Engine> engine_on(const ModelSet& models, int devices, const std::string& allocation) {
  std::vector<DeviceRoom> rooms;
  for (int i = 0; i < devices; ++i) rooms.push_back(cpu_room(i));
  PlacementRequest request{.mode = PlacementRequest::Mode::Shard,
                           .evaluations = 4,
                           .passes_a_run = 4,
                           .texts_a_run = 2,
                           .donors = {cpu_room(-1), cpu_room(7)}};
  if (!allocation.empty()) {
    request.mode = PlacementRequest::Mode::Auto;
    request.allocation["unet"] = parse_allocation(allocation);
  }
  auto engine = std::make_unique<Engine>(models, ComputeDtypes{},
                                         make_plan(component_needs(models, {}, {64, 64, 256}), rooms, request));
  engine->load_diffusion();
  return engine;
}

int streamed_blocks(const Plan& plan) {
  int out = 0;
  for (const PlannedDevice& device : plan.devices)
    for (const Assignment& a : device.assignments) out += a.streamed ? a.blocks : 0;
  return out;
}

/// Predictions of three steps of a batch of two, told two texts.
std::vector<at::Tensor> predictions(Engine& engine, std::span<const Conditioning> encoded, std::int64_t channels) {
  const std::vector<RunConditioning> texts = {{&encoded[0]}, {&encoded[1], true}};
  const std::vector<double> timesteps = {0.75, 0.5, 0.25};
  const Engine::Run run = engine.begin_run(timesteps, texts, {.width = 64, .height = 64});
  const at::Tensor x = at::randn({2, channels, 8, 8}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{5}));
  const std::vector<std::size_t> both = {0, 1};
  std::vector<at::Tensor> out;
  for (const double timestep : timesteps)
    for (at::Tensor& prediction : engine.evaluate(run, x, timestep, both)) out.push_back(std::move(prediction));
  return out;
}

void check_same_bits(const ModelSet& models, std::int64_t channels, std::initializer_list<const char*> allocations) {
  const std::vector<PromptText> prompts = {{"a boat at night"}, {"bright sun"}};
  const auto resident = engine_on(models, 1, "");
  const std::vector<Conditioning> encoded = resident->encode(prompts);
  const std::vector<at::Tensor> expected = predictions(*resident, encoded, channels);
  for (const char* allocation : allocations) {
    CAPTURE(allocation);
    for (int devices = 1; devices <= 2; ++devices) {
      if (devices == 1 && std::string_view(allocation).find("cpu:1") != std::string_view::npos) continue;
      CAPTURE(devices);
      const auto engine = engine_on(models, devices, allocation);
      CHECK(streamed_blocks(engine->plan()) > 0);
      const std::vector<at::Tensor> found = predictions(*engine, encoded, channels);
      REQUIRE(found.size() == expected.size());
      for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i].equal(expected[i]));
    }
  }
}

}  // namespace

TEST_CASE("streamed blocks give the same bits: Flux") {
  const test::Folder folder;
  check_same_bits(test::deeper_flux_set(folder, 3, 5), 16,
                  {"cpu:0,50%;cpu,50%", "cpu:0,40%;cpu,60%", "cpu,*#cpu:0", "cpu:0,40%;cpu,30%;cpu:7,30%",
                   "cpu:0,25%;cpu,25%;cpu:1,25%;cpu:7,25%", "cpu:0,50%;cpu:1,50%#cpu:1"});
}

TEST_CASE("streamed blocks give the same bits: UNet") {
  const test::Folder folder;
  check_same_bits(test::unet_set(folder), 4, {"cpu:0,50%;cpu,50%", "cpu,*#cpu:0", "cpu:0,25%;cpu,25%;cpu:1,50%"});
}

TEST_CASE("weights that serve only before the steps are read when needed, with the same bits") {
  const test::Folder folder;
  for (const ModelSet& models : {test::deeper_flux_set(folder, 3, 5), test::unet_set(folder)}) {
    const std::int64_t channels = models.has_encoder("t5xxl") ? 16 : 4;
    const std::vector<PromptText> prompts = {{"a boat at night"}, {"bright sun"}};
    const auto kept = engine_on(models, 1, "");
    const std::vector<Conditioning> encoded = kept->encode(prompts);
    const std::vector<ComponentNeed> needs = component_needs(models, {}, {64, 64, 256});
    DeviceRoom room = cpu_room(0);
    const Plan roomy = make_plan(needs, {room});
    const PhaseBytes& peak = roomy.devices[0].peak;
    room.limit_bytes = highest(peak) - 1;
    Plan plan = make_plan(needs, {room});
    CHECK(roomy.keeps_precomputed);
    CHECK_FALSE(plan.keeps_precomputed);
    room.limit_bytes = cpu_room(0).limit_bytes;
    plan.devices[0].room = room;
    Engine engine(models, ComputeDtypes{}, plan);
    engine.load_diffusion();
    const std::vector<at::Tensor> expected = predictions(*kept, encoded, channels);
    const std::vector<at::Tensor> found = predictions(engine, encoded, channels);
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(found[i].equal(expected[i]));
  }
}

TEST_CASE("a ring brings each block when it is used, and copies no more than it must") {
  std::vector<at::Tensor> weights, expected;
  for (int i = 0; i < 5; ++i) weights.push_back(at::full({3, 4}, i, at::kFloat).t());
  std::vector<at::Tensor> biases(5);
  for (int i = 0; i < 5; ++i) biases[static_cast<std::size_t>(i)] = at::full({i + 1}, i, at::kHalf);
  for (const at::Tensor& weight : weights) expected.push_back(weight.clone());
  std::vector<BlockStream::Block> blocks;
  for (int i = 0; i < 5; ++i)
    blocks.push_back({10 + i, {&weights[static_cast<std::size_t>(i)], &biases[static_cast<std::size_t>(i)]}});
  Meter meter(DeviceId::cpu(0));
  BlockStream stream(at::kCPU, std::move(blocks), &meter);
  for (const at::Tensor& weight : weights) CHECK_FALSE(weight.defined());
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < 5; ++i) {
      const BlockStream::Use use(&stream, 10 + static_cast<int>(i));
      CHECK(weights[i].equal(expected[i]));
      CHECK(weights[i].strides() == expected[i].strides());
      CHECK(biases[i].equal(at::full({static_cast<std::int64_t>(i) + 1}, static_cast<int>(i), at::kHalf)));
    }
  }
  // Each block once a round, and the one after the last ahead of its turn.
  CHECK(stream.copied_bytes() == 16 * 1024);
  { const BlockStream::Use nothing(&stream, 3); }
  { const BlockStream::Use nothing(nullptr, 10); }
  CHECK(stream.copied_bytes() == 16 * 1024);
  { const BlockStream::Use back(&stream, 12); }  // out of turn: brought all the same
  CHECK(stream.copied_bytes() == 18 * 1024);
  CHECK((meter.measured().received == std::map<DeviceId, std::uint64_t>{{DeviceId::cpu(), 18 * 1024}}));
}

TEST_CASE("two streamed blocks stay in the ring's two slots") {
  std::vector<at::Tensor> weights = {at::ones({8}), at::ones({8})};
  BlockStream stream(at::kCPU, {{0, {&weights[0]}}, {1, {&weights[1]}}});
  for (int round = 0; round < 4; ++round)
    for (int i = 0; i < 2; ++i) const BlockStream::Use use(&stream, i);
  CHECK(stream.copied_bytes() == 2 * 512);
}

TEST_CASE("streamed blocks are booked with their donors, the ring with the device that computes") {
  const auto held = [](int device) { return HostAccount::of(DeviceId::cpu(device)).current(); };
  const std::uint64_t before = held(0), donor_before = held(1);
  const HostDeviceScope scope(DeviceId::cpu(0));
  std::vector<at::Tensor> weights;
  {
    const HostDeviceScope nobody;
    for (int i = 0; i < 3; ++i) weights.push_back(at::ones({256}));
  }
  {
    const BlockStream stream(at::kCPU, {{0, {&weights[0]}, DeviceId::cpu(1)},
                                        {1, {&weights[1]}, DeviceId::cpu(1)},
                                        {2, {&weights[2]}, DeviceId::cpu(1)}});
    CHECK(held(0) == before + 2 * 1024);
    CHECK(held(1) == donor_before + 3 * 1024);
    CHECK(stream.offloaded_bytes(DeviceId::cpu(1)) == 3 * 1024);
  }
  CHECK(held(0) == before);
  CHECK(held(1) == donor_before);
}

TEST_SUITE_END();
