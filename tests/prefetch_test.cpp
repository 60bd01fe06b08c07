#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <vector>

#include "core/host_memory.h"
#include "core/models/diffusion_model.h"
#include "core/models/flux_sizes.h"
#include "core/models/held_blocks.h"
#include "core/models/unet_sizes.h"
#include "tests/model_sets.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("prefetch");

namespace {

const LocalOps ops;
const std::vector<double> timesteps = {0.75, 0.5};

std::vector<Conditioning> conditionings(const ModelSet& models, int count) {
  std::vector<Conditioning> out;
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  for (int i = 0; i < count; ++i) {
    if (models.has_encoder("t5xxl")) {
      const FluxSizes& sizes = models.diffusion.as<FluxSizes>();
      out.push_back({at::randn({1, 8, sizes.context}, random), at::randn({1, sizes.vector}, random)});
    } else {
      out.push_back({at::randn({1, 77, models.diffusion.as<UNetSizes>().context}, random), {}});
    }
  }
  return out;
}

std::unique_ptr<DiffusionShard> shard_of(const ModelSet& models, bool keeps_precomputed) {
  const std::vector<bool> all(diffusion_blocks(models.diffusion).size(), true);
  return test::load_shard(models, HeldBlocks(all, {}, keeps_precomputed), at::kFloat, at::kCPU);
}

/// A prediction of a run that is told the text.
at::Tensor prediction(DiffusionShard& shard, DiffusionShard::RunState& run_state, const ModelSet& models) {
  const at::Tensor x = at::ones({1, models.training().latent.channels, 8, 8});
  const auto pass = shard.begin(run_state, x, timesteps.back(), 0, ops);
  for (int block = 0; block < static_cast<int>(diffusion_blocks(models.diffusion).size()); ++block)
    shard.run(block, *pass, run_state, ops);
  return shard.finish(*pass, run_state, ops);
}

/// Bytes of the smallest matrix that serves only before the steps.
std::uint64_t least_matrix(const ModelSet& models) {
  std::uint64_t least = 0;
  for (const auto& [name, info] : models.diffusion.file->tensors())
    if (name.find("mod") != name.npos && name.ends_with("lin.weight"))
      least = least == 0 ? info.bytes() : std::min<std::uint64_t>(least, info.bytes());
  return least;
}

}  // namespace

TEST_CASE("weights that do not stay are read once for eight texts to come, with the same bits") {
  const ModelSet models = test::flux_set();
  const std::vector<Conditioning> encoded = conditionings(models, 11);
  const auto kept = shard_of(models, true), read = shard_of(models, false);
  std::vector<UpcomingConditioning> upcoming;
  for (const Conditioning& text : encoded)
    for (int again = 0; again < 2; ++again) upcoming.push_back({&text, 2.0, timesteps});  // two runs each
  const HostDeviceScope scope(DeviceId::cpu(0));
  HostAccount& account = HostAccount::of(DeviceId::cpu(0));
  const std::uint64_t before = account.current();
  read->prefetch(upcoming, ops);
  CHECK(account.current() == before);  // it waits in main memory, which is nobody's
  for (std::size_t i = 0; i < encoded.size(); ++i) {
    CAPTURE(i);
    account.reset_peak();
    const std::vector<RunConditioning> text = {{&encoded[i]}};
    const std::uint64_t held = account.current();
    const auto run = read->begin_run(timesteps, text, {.guidance = 2.0}, ops);
    const bool has_read = account.peak() - held > least_matrix(models);
    CHECK(has_read == (i == 8));
    CHECK(prediction(*read, *run, models)
              .equal(prediction(*kept, *kept->begin_run(timesteps, text, {.guidance = 2.0}, ops), models)));
  }
  // A text that nobody spoke of, a guidance, and one that comes again long after its turn.
  for (const auto& [conditioning, guidance] :
       {std::pair{conditionings(models, 12).back(), 2.0}, {encoded[10], 3.0}, {encoded[0], 2.0}}) {
    const std::vector<RunConditioning> text = {{&conditioning}};
    CHECK(prediction(*read, *read->begin_run(timesteps, text, {.guidance = guidance}, ops), models)
              .equal(prediction(*kept, *kept->begin_run(timesteps, text, {.guidance = guidance}, ops), models)));
  }
}

TEST_CASE("a negative prompt that all runs are told is read once more for eight of them") {
  const ModelSet models = test::flux_set();
  const std::vector<Conditioning> encoded = conditionings(models, 21);
  const Conditioning& negative = encoded.back();
  const auto shard = shard_of(models, false);
  std::vector<UpcomingConditioning> upcoming;
  for (int run = 0; run < 20; ++run)
    for (const Conditioning* text : {&encoded[static_cast<std::size_t>(run)], &negative})
      upcoming.push_back({text, 2.0, timesteps});
  const HostDeviceScope scope(DeviceId::cpu(0));
  HostAccount& account = HostAccount::of(DeviceId::cpu(0));
  shard->prefetch(upcoming, ops);
  std::vector<int> reading;
  for (int run = 0; run < 20; ++run) {
    account.reset_peak();
    const std::uint64_t held = account.current();
    const std::vector<RunConditioning> texts = {{&encoded[static_cast<std::size_t>(run)]}, {&negative, true}};
    const auto begun = shard->begin_run(timesteps, texts, {.guidance = 2.0}, ops);
    if (account.peak() - held > least_matrix(models)) reading.push_back(run);
  }
  CHECK(reading == std::vector{7, 15});
}

TEST_CASE("a level that nobody foretold is computed when a pass comes with it, and held for the next ones") {
  const ModelSet models = test::flux_set();
  const std::vector<Conditioning> encoded = conditionings(models, 1);
  const std::vector<RunConditioning> text = {{&encoded[0]}};
  const auto shard = shard_of(models, false), knowing = shard_of(models, false);
  const at::Tensor x = at::ones({1, models.training().latent.channels, 8, 8});
  const auto run = shard->begin_run(timesteps, text, {}, ops);
  for (const double level : {0.9, 0.3, 0.9, 0.75}) {
    CAPTURE(level);
    const auto expected = knowing->begin_run(std::vector{level}, text, {}, ops);
    at::Tensor predictions[2];
    for (const auto& [number, own, of] : {std::tuple{0, shard.get(), run.get()}, {1, knowing.get(), expected.get()}}) {
      const auto pass = own->begin(*of, x, level, 0, ops);
      for (int block = 0; block < static_cast<int>(diffusion_blocks(models.diffusion).size()); ++block)
        own->run(block, *pass, *of, ops);
      predictions[number] = own->finish(*pass, *of, ops);
    }
    CHECK(at::allclose(predictions[0], predictions[1], 1e-5, 1e-5));
  }
}

TEST_CASE("runs that are told the same share what comes of it, as long as one of them is there") {
  const test::Folder folder;
  for (const ModelSet& models : {test::flux_set(), test::unet_set(folder)}) {
    CAPTURE(models.has_encoder("t5xxl"));
    const std::vector<Conditioning> encoded = conditionings(models, 2);
    const auto shard = shard_of(models, true);
    const HostDeviceScope scope(DeviceId::cpu(0));
    HostAccount& account = HostAccount::of(DeviceId::cpu(0));
    const auto begin = [&](std::size_t text) {
      return shard->begin_run(timesteps, std::vector<RunConditioning>{{&encoded[text]}}, {}, ops);
    };
    const std::uint64_t before = account.current();
    auto first = begin(0);
    const std::uint64_t one = account.current() - before;
    CHECK(one > 0);
    const auto second = begin(0);
    CHECK(account.current() == before + one);
    first.reset();
    CHECK(account.current() == before + one);
    const auto third = begin(0), other = begin(1);
    CHECK(account.current() == before + 2 * one);
    for (const auto& [run, text] : {std::pair{second.get(), 0}, {third.get(), 0}, {other.get(), 1}}) {
      const auto fresh = shard_of(models, true);
      const std::vector<RunConditioning> alone = {{&encoded[static_cast<std::size_t>(text)]}};
      CHECK(prediction(*shard, *run, models)
                .equal(prediction(*fresh, *fresh->begin_run(timesteps, alone, {}, ops), models)));
    }
  }
}

TEST_SUITE_END();
