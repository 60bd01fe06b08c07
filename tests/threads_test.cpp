#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <span>
#include <thread>

#include "cli/render/run_queue.h"
#include "core/cancel.h"
#include "core/fault_point.h"
#include "shard/device_error.h"
#include "shard/pipeline.h"
#include "tests/watchdog.h"

// The pipeline and its meters, which threads share, around a model that only looks like one. Small enough to be built
// again with -fsanitize=thread (tests/CMakeLists.txt), as workers_test.cpp is.

using namespace mgpu;

namespace {

constexpr int kBlocks = 4;

std::atomic<int> blocks_after_stop = 0;

/// Multiplies and adds. It counts its calls without a lock: a device's work is one thread's.
class FakeShard final : public DiffusionShard {
 public:
  /// Of the member with these operations, which are all that it may be given. `order`: where to note the block of each
  /// call.
  explicit FakeShard(const Ops& own, std::vector<int>* order = nullptr) : own_(own), order_(order) {}

  std::unique_ptr<RunState> begin_run(std::span<const double>, std::span<const RunConditioning> texts,
                                      const RunFacts& facts, const Ops& ops) override {
    count_call(ops);
    auto run_state = std::make_unique<FakeRunState>();
    for (std::size_t i = 0; i < texts.size(); ++i) run_state->texts.push_back(facts.guidance + static_cast<double>(i));
    return run_state;
  }
  std::unique_ptr<DiffusionPass> begin(const RunState&, const at::Tensor& x, double timestep, std::size_t text,
                                       const Ops& ops) const override {
    count_call(ops);
    auto pass = std::make_unique<FakePass>(timestep, text);
    pass->x = x.clone();
    return pass;
  }
  void run(int block, DiffusionPass& pass, RunState& run_state, const Ops& ops) const override {
    count_call(ops);
    if (is_stop_requested()) ++blocks_after_stop;
    if (order_) order_->push_back(block);
    double& value = static_cast<FakeRunState&>(run_state).texts.at(pass.text);
    at::Tensor& x = static_cast<FakePass&>(pass).x;
    x = x * 0.5 + value + pass.timestep * block;
  }
  std::vector<at::Tensor*> block_tensors(int) override { return {}; }
  at::Tensor finish(DiffusionPass& pass, RunState&, const Ops& ops) const override {
    count_call(ops);
    return static_cast<FakePass&>(pass).x;
  }

 private:
  struct FakeRunState final : RunState {
    std::vector<double> texts;
  };
  struct FakePass final : DiffusionPass {
    using DiffusionPass::DiffusionPass;
    std::vector<at::Tensor*> travelling() override { return {&x}; }
    at::Tensor x;
  };
  void count_call(const Ops& ops) const {
    ++calls_;
    MGPU_CHECK(&ops == &own_, "a member was given the operations of another");
  }

  mutable int calls_ = 0;
  const Ops& own_;
  std::vector<int>* order_;
};

/// A member whose shard knows its operations.
Pipeline::Member member(DeviceId device, Worker& worker, Meter& meter, std::vector<int>* order = nullptr) {
  auto ops = std::make_unique<LocalOps>();
  auto shard = std::make_unique<FakeShard>(*ops, order);
  return {device, &worker, &meter, std::move(ops), std::move(shard)};
}

/// Two devices that the model goes down and up through, or one that has all of it.
struct Devices {
  /// With followers, as GPUs have them, and with a block that the second one streams, or the only one.
  enum class Are : std::uint8_t { Plain, Followed, Streaming, Alone };

  explicit Devices(Are are = Are::Plain) {
    if (are == Are::Alone) count = 1;
    std::vector<Pipeline::Member> members(count);
    for (std::size_t i = 0; i < count; ++i) {
      members[i] = member(DeviceId::cpu(static_cast<int>(i)), workers[i], meters[i]);
      if (are != Are::Plain) members[i].follower = &followers[i];
    }
    if (are == Are::Streaming || are == Are::Alone)
      members.back().stream =
          std::make_unique<BlockStream>(at::kCPU, std::vector{BlockStream::Block{1, {}, DeviceId::cpu()}});
    const std::vector<Pipeline::Stage> two = {{{0}, 0, 0}, {{1}, 1, 2}, {{0}, 3, kBlocks - 1}},
                                       one = {{{0}, 0, kBlocks - 1}};
    pipeline.emplace(std::move(members), are == Are::Alone ? one : two);
  }

  std::size_t count = 2;
  std::array<Meter, 2> meters{Meter(DeviceId::cpu()), Meter(DeviceId::cpu())};
  std::array<Worker, 2> workers{
      {{DeviceId::cpu(0), Worker::Runs::InThread}, {DeviceId::cpu(1), Worker::Runs::InThread}}};
  std::array<Worker, 2> followers{
      {{DeviceId::cpu(0), Worker::Runs::InThread}, {DeviceId::cpu(1), Worker::Runs::InThread}}};
  std::optional<Pipeline> pipeline;
};

/// Four steps of two texts, each begun from what the one before gave.
at::Tensor sample(Pipeline& pipeline, int seed) {
  const Conditioning nothing;
  const std::vector<RunConditioning> texts = {{&nothing}, {&nothing, true}};
  const std::vector<double> timesteps = {1.0, 0.5};
  const auto run = pipeline.begin_run(timesteps, texts, {.guidance = static_cast<double>(seed)});
  at::Tensor x = at::full({1, 4, 8, 8}, seed);
  for (int step = 0; step < 4; ++step) {
    const std::vector<Pipeline::Evaluation> evaluations = {{x, 0}, {x, 1}};
    std::vector<std::future<at::Tensor>> passes = pipeline.submit(run, evaluations, 0.25);
    for (const auto& pass : passes) pass.wait();  // each, whatever becomes of the others
    const at::Tensor positive = passes[0].get(), negative = passes[1].get();
    x = positive + negative;
  }
  return x;
}

/// What one device alone makes of that.
at::Tensor expected(int seed) {
  Worker worker(DeviceId::cpu(), Worker::Runs::InCaller);
  Meter meter(DeviceId::cpu());
  std::vector<Pipeline::Member> members(1);
  members[0] = member(DeviceId::cpu(), worker, meter);
  Pipeline pipeline(std::move(members), {{{0}, 0, kBlocks - 1}});
  return sample(pipeline, seed);
}

/// Samples runs 0 to count-1 side by side; what failed is undefined.
std::vector<at::Tensor> sample_all(Pipeline& pipeline, std::size_t count) {
  std::vector<at::Tensor> out(count);
  RunQueue queue(std::vector<std::size_t>(count, 2), pipeline.stages() + 1);
  {
    std::vector<std::jthread> samplers;
    for (int i = 0; i < 4; ++i)
      samplers.emplace_back([&] {
        while (const auto slot = queue.next()) {
          try {
            out[slot->run()] = sample(pipeline, static_cast<int>(slot->run()));
          } catch (const std::exception&) {  // it stays undefined
          } catch (const Interrupted&) {
          }
        }
      });
  }
  return out;
}

/// Takes the hook away once the devices declared behind it are gone, whose threads may still ask for it.
struct ForgetHook {
  ~ForgetHook() { fault_hook = nullptr; }
};

}  // namespace

TEST_SUITE_BEGIN("threads");

TEST_CASE("runs side by side give what each gives alone, and every pass is counted") {
  using Are = Devices::Are;
  for (const Are are : {Are::Plain, Are::Followed, Are::Streaming, Are::Alone}) {
    Devices devices(are);
    devices.pipeline->limit(6);
    const std::vector<at::Tensor> found = sample_all(*devices.pipeline, 12);
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i].equal(expected(static_cast<int>(i))));
    for (const Meter& meter : std::span(devices.meters).first(devices.count)) {
      CHECK(meter.passes() == 12 * 4 * 2);
      CHECK(meter.blocks_per_pass() == (are == Are::Alone ? 4 : 2));
    }
  }
}

TEST_CASE("a run that fails anywhere ends, and the others give what they give") {
  std::vector<at::Tensor> right;
  for (int i = 0; i < 6; ++i) right.push_back(expected(i));
  for (int n = 0; n < 160; ++n) {
    CAPTURE(n);
    std::atomic<int> count{0};
    std::atomic<bool> is_armed{false};
    fault_hook = [&](std::string_view) {
      if (is_armed && count++ % 40 == n % 40) throw std::runtime_error("injected");
    };
    {
      Devices devices(static_cast<Devices::Are>(n / 40));
      is_armed = true;
      const std::vector<at::Tensor> found = sample_all(*devices.pipeline, 6);
      is_armed = false;
      for (std::size_t i = 0; i < found.size(); ++i)
        if (found[i].defined()) CHECK(found[i].equal(right[i]));
      CHECK(sample(*devices.pipeline, 3).equal(right[3]));
    }
    fault_hook = nullptr;
  }
}

TEST_CASE("a failure says whose work it ended, the receiver's where a state is handed over") {
  // The hook stands as long as the devices do, whose threads may be at work a little longer than a pass.
  std::atomic<const char*> where{nullptr};
  fault_hook = [&](std::string_view place) {
    const char* wanted = where;
    if (wanted && place == wanted && where.exchange(nullptr) == wanted) throw std::bad_alloc();
  };
  {
    Devices devices(Devices::Are::Followed);
    const auto device_that_fails = [&](const char* place) {
      where = place;
      std::string name = "none";
      try {
        sample(*devices.pipeline, 1);
      } catch (const DeviceError& error) {
        name = error.device() == DeviceId::cpu(0) ? "cpu:0" : "cpu:1";
      }
      where = nullptr;
      return name;
    };
    CHECK(device_that_fails("begin run") != "none");
    CHECK(device_that_fails("stage") == "cpu:0");
    CHECK(device_that_fails("finish") == "cpu:0");
    CHECK(device_that_fails("hand over") == "cpu:1");
    CHECK(device_that_fails("nowhere") == "none");
  }
  fault_hook = nullptr;
}

TEST_CASE("what is done between passes waits for those that are there, and is done") {
  using Are = Devices::Are;
  for (const Are are : {Are::Plain, Are::Followed, Are::Streaming, Are::Alone}) {
    Devices devices(are);
    devices.pipeline->limit(6);
    std::atomic<int> done{0};
    std::atomic<bool> over{false};
    std::jthread asks([&] {
      while (!over)
        for (std::size_t i = 0; i < devices.count; ++i) {
          devices.pipeline->between_passes(DeviceId::cpu(static_cast<int>(i)), [&] { ++done; }).get();
        }
    });
    const std::vector<at::Tensor> found = sample_all(*devices.pipeline, 12);
    over = true;
    asks.join();
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i].equal(expected(static_cast<int>(i))));
    CHECK(done > 0);
  }
}

TEST_CASE("a pipeline goes as soon as what was waited for is done, and nothing that it posted is left behind") {
  test::Watchdog watchdog("a pipeline that goes");
  using Are = Devices::Are;
  for (const Are are : {Are::Plain, Are::Followed, Are::Streaming, Are::Alone}) {
    for (int i = 0; i < 60; ++i) {
      watchdog.sees(fmt::format("devices {}, pipeline {}", static_cast<int>(are), i));
      Devices devices(are);
      if (i % 2 == 0) {
        sample(*devices.pipeline, 1);
      } else {
        std::thread asks([&] {
          for (std::size_t k = 0; k < devices.count; ++k)
            devices.pipeline->between_passes(DeviceId::cpu(static_cast<int>(k)), [] {}).get();
        });
        sample(*devices.pipeline, 1);
        asks.join();
      }
      devices.pipeline.reset();  // the workers and followers go on
    }
  }
}

TEST_CASE("failures at random, work between passes, a program that is asked to end: everything ends, nothing is lost") {
  test::Watchdog watchdog("failures at random");
  const at::Tensor right = expected(3);
  for (unsigned seed = 0; seed < 60; ++seed) {
    watchdog.sees(fmt::format("seed {}", seed));
    std::atomic<unsigned> count{0};
    std::atomic<bool> is_armed{false};
    const bool stops = seed % 3 == 0;
    fault_hook = [&](std::string_view) {
      if (!is_armed) return;
      const unsigned number = count++;
      if (stops && number == 50 + 7 * seed) stop_signal = 2;
      unsigned drawn = (number + 1) * 2654435761U + seed * 40503U;
      drawn ^= drawn >> 15U;
      if (drawn % 29 == 0) throw std::runtime_error("injected");
    };
    const ForgetHook forget;
    Devices devices(static_cast<Devices::Are>(seed % 4));
    devices.pipeline->limit(6);
    is_armed = true;
    std::atomic<bool> over{false};
    std::atomic<int> begun{0}, done{0}, ended{0};
    std::thread asks([&] {
      while (!over) {
        for (std::size_t i = 0; i < devices.count; ++i) {
          try {
            std::future<void> one =
                devices.pipeline->between_passes(DeviceId::cpu(static_cast<int>(i)), [&] { ++done; });
            ++begun;
            one.wait();
            ++ended;
          } catch (const std::exception&) {  // could not be posted
          }
        }
      }
    });
    const std::vector<at::Tensor> found = sample_all(*devices.pipeline, 6);
    over = true;
    asks.join();
    is_armed = false;
    stop_signal = 0;
    blocks_after_stop = 0;
    CHECK(begun == ended);
    CHECK(done <= begun);
    for (std::size_t i = 0; i < found.size(); ++i)
      if (found[i].defined()) CHECK(found[i].equal(expected(static_cast<int>(i))));
    CHECK(sample(*devices.pipeline, 3).equal(right));
  }
}

TEST_CASE("once the program is asked to end no block begins, and passes that wait end at once") {
  test::Watchdog watchdog("a program that is asked to end");
  for (int n = 0; n < 60; ++n) {
    watchdog.sees(fmt::format("asked at stage {}", n));
    std::atomic<int> stages{0};
    blocks_after_stop = 0;
    fault_hook = [&](std::string_view place) {
      if (place == "stage" && stages++ == n / 8) stop_signal = 15;
    };
    const ForgetHook forget;
    Devices devices(static_cast<Devices::Are>(n % 4));
    const std::vector<at::Tensor> found = sample_all(*devices.pipeline, 6);
    CHECK(is_stop_requested());
    CHECK_THROWS_AS(sample(*devices.pipeline, 3), Interrupted);
    CHECK(blocks_after_stop <= static_cast<int>(devices.count));  // that had been let in
    stop_signal = 0;
    for (std::size_t i = 0; i < found.size(); ++i)
      if (found[i].defined()) CHECK(found[i].equal(expected(static_cast<int>(i))));
    CHECK(sample(*devices.pipeline, 3).equal(expected(3)));
  }
}

TEST_CASE("passes go together as far as the copies of streamed blocks need it") {
  // Of four blocks so many are streamed; six passes wait. A CPU, which copies blocks itself, waits for every copy.
  const std::vector<std::vector<int>> batches = {{1, 1, 1, 1, 1, 1}, {1, 2, 3}, {1, 2, 3}, {2, 4}, {2, 4}};
  for (int streamed = 0; streamed <= kBlocks; ++streamed) {
    CAPTURE(streamed);
    Worker worker(DeviceId::cpu(), Worker::Runs::InThread);
    Meter meter(DeviceId::cpu());
    std::vector<int> blocks;  // in the order in which passes went through them
    std::vector<Pipeline::Member> members(1);
    members[0] = member(DeviceId::cpu(), worker, meter, &blocks);
    std::vector<BlockStream::Block> offloaded;
    for (int block = 0; block < streamed; ++block) offloaded.push_back({block, {}, DeviceId::cpu()});
    if (streamed > 0) members[0].stream = std::make_unique<BlockStream>(at::kCPU, std::move(offloaded));
    Pipeline pipeline(std::move(members), {{{0}, 0, kBlocks - 1}});
    pipeline.limit(6);
    const Conditioning nothing;
    const auto run = pipeline.begin_run(std::vector{1.0}, std::vector<RunConditioning>{{&nothing}}, {});
    const std::vector<Pipeline::Evaluation> evaluations(6, {at::ones({1, 4, 8, 8}), 0});
    for (std::future<at::Tensor>& pass : pipeline.submit(run, evaluations, 1.0)) pass.wait();
    std::vector<int> expected;
    for (const int passes : batches[static_cast<std::size_t>(streamed)])
      for (int block = 0; block < kBlocks; ++block) expected.insert(expected.end(), passes, block);
    CHECK(blocks == expected);
  }
}

TEST_CASE("what is done between passes has its turn: behind those that came before it, before the others") {
  const Conditioning nothing;
  const std::vector<RunConditioning> texts = {{&nothing}};
  const std::vector<double> timesteps = {1.0};
  Devices devices;
  const auto run = devices.pipeline->begin_run(timesteps, texts, {});
  std::promise<void> begins;
  std::thread::id first;
  devices.workers[0].post([&first, waits = begins.get_future().share()] {
    first = std::this_thread::get_id();
    waits.wait();
  });
  int stages = 0, before = 0;  // of the first device
  fault_hook = [&](std::string_view place) {
    if (place == "stage" && std::this_thread::get_id() == first) ++stages;
  };
  const std::vector<Pipeline::Evaluation> evaluations(2, {at::ones({1, 4, 8, 8}), 0});
  auto passes = devices.pipeline->submit(run, evaluations, 0.5);
  std::future<void> between = devices.pipeline->between_passes(DeviceId::cpu(0), [&] { before = stages; });
  std::ranges::move(devices.pipeline->submit(run, evaluations, 0.5), std::back_inserter(passes));
  begins.set_value();
  for (const auto& pass : passes) pass.wait();
  between.wait();
  CHECK(before == 2);
  CHECK(stages == 8);  // each pass comes there twice
  fault_hook = nullptr;
}

TEST_CASE("a meter is asked while devices work") {
  Devices devices;
  std::atomic<bool> over = false;
  std::uint64_t asked = 0;
  std::jthread asks([&] {
    while (!over) asked += devices.meters[0].measured().passes > 0 ? 1 : 0;
  });
  {
    const Meter::PhaseScope sampling(devices.meters[0], Phase::Sample);
    std::jthread decodes([&] {
      for (int i = 0; i < 10; ++i)
        devices.workers[0].call([&] {
          const Meter::PhaseScope decoding(devices.meters[0], Phase::Decode);
          const Meter::Busy busy(devices.meters[0]);
        });
    });
    sample_all(*devices.pipeline, 4);
  }
  over = true;
  asks.join();
  CHECK(devices.meters[0].passes() == 4 * 4 * 2);
  CHECK(devices.meters[0].peaks().sample > 0);
  CHECK(devices.meters[0].peaks().decode > 0);
}

TEST_SUITE_END();
