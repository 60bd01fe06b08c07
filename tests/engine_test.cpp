#include "shard/engine.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/error.h"
#include "core/fault_point.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "core/models/flux_sizes.h"
#include "shard/make_plan.h"
#include "shard/needs.h"
#include "tests/model_sets.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;

namespace {

Engine engine() {
  DeviceRoom room;
  room.id = DeviceId::cpu();
  room.limit_bytes = std::uint64_t{64} << 30;
  return Engine(test::flux_set(), {}, make_plan(component_needs(test::flux_set(), {}, {64, 64, 256}), {room}));
}

/// On two virtual devices, the encoders placed as told; else both cut in the middle, T5 beginning on the second device.
Engine engine_of_cut_encoders(const ModelSet& set, const char* clip_l = "cpu:0,50%;cpu:1,50%",
                              const char* t5xxl = "cpu:1,50%;cpu:0,50%") {
  const auto room = [](int index) {
    DeviceRoom out;
    out.id = DeviceId::cpu(index);
    out.total_bytes = out.limit_bytes = std::uint64_t{64} << 30;
    return out;
  };
  const PlacementRequest request{
      .allocation = {{"clip_l", parse_allocation(clip_l)}, {"t5xxl", parse_allocation(t5xxl)}},
      .donors = {room(-1), room(7)}};
  return Engine(set, {}, make_plan(component_needs(set, {}, {64, 64, 256}), {room(0), room(1)}, request));
}

}  // namespace

TEST_SUITE_BEGIN("engine");

TEST_CASE("prompts are encoded as the reference pipeline's encoders do") {
  Engine e = engine();
  const auto cases = TensorFile::open(golden("picture_cases.safetensors"));
  const std::vector<PromptText> prompts = {{"Night over the mountains; a small boat on dark water"},
                                           {"bright sun, blue sky"}};
  const std::vector<Conditioning> out = e.encode(prompts);
  REQUIRE(out.size() == 2);
  CHECK(relative_l2(out[0].context, read(*cases, "dev.1.positive.context")) <= 1e-5);
  CHECK(relative_l2(out[0].pooled, read(*cases, "dev.1.positive.pooled")) <= 1e-5);
  CHECK(relative_l2(out[1].context, read(*cases, "dev.1.negative.context")) <= 1e-5);
  CHECK(relative_l2(out[1].pooled, read(*cases, "dev.1.negative.pooled")) <= 1e-5);
  CHECK(e.encode({}).empty());
}

TEST_CASE("encoders over several devices tell the same, to the bit, and every device counts its part") {
  const std::vector<PromptText> prompts = {{"a (small:1.3) boat on dark water"}, {""}, {"bright sun, blue sky"}};
  Engine alone = engine(), several = engine_of_cut_encoders(test::flux_set());
  const std::vector<Conditioning> expected = alone.encode(prompts), found = several.encode(prompts);
  REQUIRE(found.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(at::equal(found[i].context, expected[i].context));
    CHECK(at::equal(found[i].pooled, expected[i].pooled));
  }
  CHECK(several.meter(0).busy_seconds() > 0.0);
  CHECK(several.meter(1).busy_seconds() > 0.0);
}

TEST_CASE("encoders' layers that are streamed from donors tell the same, to the bit") {
  const std::vector<PromptText> prompts = {{"a (small:1.3) boat on dark water"}, {"bright sun, blue sky"}};
  Engine alone = engine();
  const std::vector<Conditioning> expected = alone.encode(prompts);
  for (const auto& [clip_l, t5xxl] :
       {std::pair{"cpu:0,50%;cpu,50%", "cpu,*#cpu:1"}, {"cpu:0,50%;cpu:7,50%", "cpu:1,50%;cpu:0,50%"}}) {
    const std::string shown = clip_l;  // clang captures no structured binding
    CAPTURE(shown);
    Engine e = engine_of_cut_encoders(test::flux_set(), clip_l, t5xxl);
    CHECK(e.plan().streamed_bytes("clip_l").size() == 1);
    const std::vector<Conditioning> found = e.encode(prompts);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(at::equal(found[i].context, expected[i].context));
      CHECK(at::equal(found[i].pooled, expected[i].pooled));
    }
  }
}

TEST_CASE("what fails in a piece of an encoder reaches the caller, and the engine encodes again") {
  Engine e = engine_of_cut_encoders(test::flux_set());
  CHECK_THROWS_WITH_AS(e.encode(std::vector<PromptText>{{"a boat", 7}}),
                       doctest::Contains("the CLIP encoder has 2 layers, and layer -7 was asked for"), Error);
  CHECK(e.encode(std::vector<PromptText>{{"a boat"}}).size() == 1);

  fault_hook = [](std::string_view place) {
    if (place == "encode") throw Error(Exit::ImageFailed, {}, "lost");
  };
  for (int i = 0; i < 2; ++i)
    CHECK_THROWS_WITH_AS(e.encode(std::vector<PromptText>{{"a boat"}}), doctest::Contains("lost"), Error);
  fault_hook = nullptr;
  CHECK(e.encode(std::vector<PromptText>{{"a boat"}}).size() == 1);
}

TEST_CASE("each image of a batch is a call of its own, to the same bits, and every block is counted") {
  Engine e = engine();
  const Conditioning conditioning = e.encode(std::vector<PromptText>{{"a boat"}}).front();
  e.load_diffusion();
  e.load_diffusion();  // a second time is nothing
  const at::Tensor x = at::randn({3, 16, 8, 4}, at::make_generator<at::CPUGeneratorImpl>(1));
  const std::vector<double> timesteps = {0.7};
  const Engine::Run run = e.begin_run(timesteps, std::vector<RunConditioning>{{&conditioning}}, {});
  const std::vector<std::size_t> text = {0};
  const at::Tensor all = e.evaluate(run, x, 0.7, text).front();
  CHECK(all.sizes() == x.sizes());
  CHECK((all.scalar_type() == at::kFloat));
  CHECK(e.meter().passes() == 3);
  for (int i = 0; i < 3; ++i)
    CHECK(at::equal(e.evaluate(run, x.narrow(0, i, 1), 0.7, text).front(), all.narrow(0, i, 1)));
  CHECK(e.meter().passes() == 6);
  const FluxSizes& sizes = e.models().diffusion.as<FluxSizes>();
  CHECK(e.meter().blocks_per_pass() == sizes.depth + sizes.depth_single);
}

TEST_CASE("a pass that fails is none, and a model that is not loaded is our own mistake") {
  Engine e = engine();
  const Conditioning conditioning = e.encode(std::vector<PromptText>{{"a boat"}}).front();
  const std::vector<std::size_t> text = {0};
  CHECK_THROWS_AS(e.evaluate(nullptr, at::zeros({1, 16, 4, 4}), 0.7, text), std::logic_error);
  CHECK_THROWS_AS(e.begin_run({}, std::vector<RunConditioning>{{&conditioning}}, {}), std::logic_error);
  e.load_diffusion();
  const Engine::Run run = e.begin_run({}, std::vector<RunConditioning>{{&conditioning}}, {});
  CHECK_THROWS_AS(e.evaluate(run, at::zeros({1, 16, 5, 4}), 0.7, text), std::logic_error);
  CHECK(e.meter().passes() == 0);
  CHECK(e.meter().blocks_per_pass() == 0.0);
}

TEST_CASE("a phase's peak sees what its work held, and keeps the highest of several") {
  constexpr std::int64_t kBytes = std::int64_t{64} << 20;
  Engine e = engine();
  const HostDeviceScope scope(DeviceId::cpu());
  const auto hold = [](std::int64_t bytes) { at::empty({bytes}, at::kByte); };
  const double seconds = e.measure(Phase::Sample, [&] { hold(kBytes); });
  CHECK(seconds > 0.0);
  CHECK(e.meter().busy_seconds() > 0.0);
  CHECK(e.meter().peaks().sample >= static_cast<std::uint64_t>(kBytes));
  CHECK(e.meter().peaks().decode == 0);
  const std::uint64_t highest = e.meter().peaks().sample;
  e.measure(Phase::Sample, [&] { hold(1024); });
  CHECK(e.meter().peaks().sample == highest);
  CHECK_THROWS_AS(e.measure(Phase::Decode, [] { throw std::runtime_error("x"); }), std::runtime_error);
  CHECK(e.meter().peaks().decode > 0);  // a phase that failed is the one whose peak is asked for
}

TEST_CASE("a decode among the passes of other runs is a phase of its own, on the autoencoder's device") {
  constexpr std::int64_t kBytes = std::int64_t{64} << 20;
  Engine e = engine();
  const HostDeviceScope scope(DeviceId::cpu());
  const auto hold = [](std::int64_t bytes) { at::empty({bytes}, at::kByte); };
  hold(2 * kBytes);  // before any phase
  e.measure(Phase::Sample, [&] {
    const std::uint64_t before = bytes_in_use(DeviceId::cpu());
    hold(kBytes);
    CHECK(e.at_autoencoder(Phase::Decode, [&] { hold(2 * kBytes); }) > 0.0);
    const PhaseBytes peaks = e.meter().peaks();
    CHECK(peaks.sample == before + kBytes);
    CHECK(peaks.decode == before + 2 * kBytes);
  });
  CHECK(e.meter().peaks().sample < e.meter().peaks().decode);  // the decode's is not the sampling's
  CHECK_THROWS_AS(e.at_autoencoder(Phase::Decode, [] { throw std::out_of_range("x"); }), std::out_of_range);
  CHECK(e.passes_at_once() == 1);
}

TEST_SUITE_END();
