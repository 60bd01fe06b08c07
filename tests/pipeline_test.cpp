#include "shard/pipeline.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <doctest/doctest.h>

#include <map>
#include <thread>

#include "core/hand_over.h"
#include "core/models/flux_sizes.h"
#include "shard/engine.h"
#include "shard/make_plan.h"
#include "shard/needs.h"
#include "tests/model_sets.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("pipeline");

namespace {

/// An engine on so many virtual CPU devices, the diffusion model cut over all of them.
std::unique_ptr<Engine> engine_on(const ModelSet& models, int devices) {
  std::vector<DeviceRoom> rooms;
  for (int i = 0; i < devices; ++i) {
    DeviceRoom& room = rooms.emplace_back();
    room.id = DeviceId::cpu(i);
    room.limit_bytes = std::uint64_t{64} << 30;
  }
  std::vector<ComponentNeed> needs = component_needs(models, {}, {64, 64, 256});
  needs.back().time_a_pass = 0.0;  // decoding takes as long as these small models do: its device would get no block
  Plan plan = make_plan(needs, rooms, {.mode = PlacementRequest::Mode::Shard, .evaluations = 16, .texts_a_run = 2});
  auto engine = std::make_unique<Engine>(models, ComputeDtypes{}, std::move(plan));
  engine->load_diffusion();
  return engine;
}

/// Predictions of a batch of two, told two texts.
std::vector<at::Tensor> predictions(Engine& engine, std::span<const Conditioning> encoded, std::int64_t channels,
                                    double timestep, std::uint64_t seed) {
  const std::vector<RunConditioning> texts = {{&encoded[0]}, {&encoded[1], true}};
  const std::vector<double> timesteps = {timestep};
  const Engine::Run run = engine.begin_run(timesteps, texts, {.width = 64, .height = 64});
  const at::Tensor x = at::randn({2, channels, 8, 8}, at::make_generator<at::CPUGeneratorImpl>(seed));
  const std::vector<std::size_t> both = {0, 1};
  return engine.evaluate(run, x, timestep, both);
}

bool equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return a.size() == b.size() && std::ranges::equal(a, b, [](const auto& x, const auto& y) { return x.equal(y); });
}

/// The same bits on one device and on several, from one run and from runs side by side.
void check_same_bits(const ModelSet& models, std::int64_t channels, double timestep, int most) {
  const std::vector<PromptText> prompts = {{"a boat at night"}, {"bright sun"}};
  const auto alone = engine_on(models, 1);
  const std::vector<Conditioning> encoded = alone->encode(prompts);
  std::vector<std::vector<at::Tensor>> expected;
  for (std::uint64_t seed = 0; seed < 3; ++seed)
    expected.push_back(predictions(*alone, encoded, channels, timestep, seed));
  CHECK_FALSE(equal(expected[0], expected[1]));
  for (int devices = 2; devices <= most; ++devices) {
    CAPTURE(devices);
    const auto engine = engine_on(models, devices);
    CHECK(equal(predictions(*engine, encoded, channels, timestep, 0), expected[0]));
    std::vector<std::vector<at::Tensor>> found(3);
    {
      std::vector<std::jthread> samplers;
      for (std::uint64_t seed = 0; seed < 3; ++seed)
        samplers.emplace_back([&, seed] {
          at::set_num_threads(1);
          found[seed] = predictions(*engine, encoded, channels, timestep, seed);
        });
    }
    for (std::size_t seed = 0; seed < 3; ++seed) CHECK(equal(found[seed], expected[seed]));
    double blocks = 0;
    for (int i = 0; i < devices; ++i) {
      const Meter& meter = engine->meter(static_cast<std::size_t>(i));
      CHECK(meter.passes() == 16);  // four runs of two images with two texts
      CHECK(meter.blocks_per_pass() > 0);
      CHECK(meter.busy_seconds() > 0);
      blocks += meter.blocks_per_pass();
    }
    CHECK(blocks == static_cast<double>(diffusion_blocks(models.diffusion).size()));
  }
}

}  // namespace

TEST_CASE("Flux over several devices predicts the same bits, every block once a pass") {
  check_same_bits(test::flux_set("schnell"), 16, 0.7, 2);
}

TEST_CASE("a UNet over several devices predicts the same bits, skips staying where they were made") {
  const test::Folder folder;
  check_same_bits(test::unet_set(folder), 4, 500, 3);
}

TEST_CASE("what devices send each other is counted where it comes to") {
  const ModelSet models = test::flux_set("schnell");
  const auto engine = engine_on(models, 2);
  const std::vector<Conditioning> encoded = engine->encode(std::vector<PromptText>{{"a boat"}, {"a longer text"}});
  predictions(*engine, encoded, 16, 0.7, 0);
  std::uint64_t states = 0;  // of two images, told each text: 16 image tokens and the text's
  for (const Conditioning& text : encoded)
    states += 2 * static_cast<std::uint64_t>((16 + text.context.size(1)) * models.diffusion.as<FluxSizes>().hidden) *
              sizeof(float);
  using Received = std::map<DeviceId, std::uint64_t>;
  CHECK((engine->meter(1).measured().received == Received{{DeviceId::cpu(0), states}}));
  CHECK((engine->meter(0).measured().received == Received{{DeviceId::cpu(1), 4 * 16 * 8 * 8 * sizeof(float)}}));
}

TEST_CASE("a pass that fails throws to the one who waits for it, and the next one works") {
  const ModelSet models = test::flux_set("schnell");
  const auto engine = engine_on(models, 2);
  const std::vector<Conditioning> encoded = engine->encode(std::vector<PromptText>{{"a boat"}, {""}});
  const std::vector<RunConditioning> texts = {{&encoded[0]}};
  const std::vector<std::size_t> first = {0}, unknown = {1};
  const Engine::Run run = engine->begin_run({}, texts, {});
  CHECK_THROWS_AS(engine->evaluate(run, at::zeros({2, 16, 5, 4}), 0.7, first), std::logic_error);
  CHECK_THROWS_AS(engine->evaluate(run, at::zeros({1, 16, 4, 4}), 0.7, unknown), std::out_of_range);
  CHECK(engine->meter(0).passes() == 0);
  CHECK(engine->evaluate(run, at::zeros({1, 16, 4, 4}), 0.7, first).front().size(1) == 16);
  CHECK(engine->meter(1).passes() == 1);
}

TEST_CASE("what a device does not hold it does not run") {
  const ModelSet models = test::flux_set("schnell");
  std::vector<bool> held(static_cast<std::size_t>(static_cast<double>(diffusion_blocks(models.diffusion).size())),
                         false);
  held[1] = true;
  const auto shard = test::load_shard(models, HeldBlocks(held), at::kFloat, at::kCPU);
  const LocalOps ops;
  const Conditioning encoded{at::zeros({1, 4, models.diffusion.as<FluxSizes>().context}),
                             at::zeros({1, models.diffusion.as<FluxSizes>().vector})};
  const auto ready = shard->begin_run({}, std::vector<RunConditioning>{{&encoded}}, {}, ops);
  CHECK_THROWS_WITH_AS(shard->begin(*ready, at::zeros({1, 16, 4, 4}), 0.5, 0, ops),
                       doctest::Contains("the first block is not held"), std::logic_error);
}

TEST_CASE("a worker runs what it is given in order, gives back what it threw, and ends with nothing left") {
  std::vector<int> order;
  {
    Worker worker(DeviceId::cpu(), Worker::Runs::InThread);
    for (int i = 0; i < 100; ++i) worker.post([&order, i] { order.push_back(i); });
    CHECK(worker.call([] { return std::this_thread::get_id(); }) != std::this_thread::get_id());
    CHECK(order.size() == 100);
    CHECK_THROWS_AS(worker.call([]() -> int { throw std::runtime_error("x"); }), std::runtime_error);
    CHECK(worker.call([] { return at::get_num_threads(); }) == at::get_num_threads());
    for (int i = 100; i < 200; ++i) worker.post([&order, i] { order.push_back(i); });
  }
  CHECK(order.size() == 200);
  CHECK(std::ranges::is_sorted(order));
  Worker inline_worker(DeviceId::cpu(), Worker::Runs::InCaller);
  CHECK(inline_worker.call([] { return std::this_thread::get_id(); }) == std::this_thread::get_id());
}

TEST_CASE("a hand-over between virtual devices is a copy") {
  const at::Tensor x = at::arange(6, at::kFloat);
  const at::Tensor y = hand_over(x, at::kCPU);
  CHECK(y.equal(x));
  CHECK(y.data_ptr() != x.data_ptr());
  CHECK_FALSE(hand_over({}, at::kCPU).defined());
}

TEST_SUITE_END();
