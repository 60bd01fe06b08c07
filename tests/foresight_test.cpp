#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <vector>

#include "core/host_memory.h"
#include "core/models/held_blocks.h"
#include "shard/diffusion.h"
#include "tests/model_sets.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("foresight");

namespace {

const LocalOps ops;
const std::vector<double> timesteps = {0.75, 0.5};

std::vector<Conditioning> conditionings(const ModelSet& models, int count) {
  std::vector<Conditioning> out;
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  for (int i = 0; i < count; ++i) {
    if (models.is_flux()) {
      const FluxSizes& sizes = models.diffusion.flux();
      out.push_back({at::randn({1, 8, sizes.context}, random), at::randn({1, sizes.vector}, random)});
    } else {
      out.push_back({at::randn({1, 77, models.diffusion.unet().context}, random), {}});
    }
  }
  return out;
}

std::unique_ptr<DiffusionShard> shard_of(const ModelSet& models, bool keeps_ahead) {
  const std::vector<bool> all(diffusion_blocks(models).size(), true);
  return load_shard(models, HeldBlocks(all, {}, keeps_ahead), at::kFloat, at::kCPU);
}

/// A prediction of a run that is told the text.
at::Tensor prediction(DiffusionShard& shard, DiffusionShard::Told& told, const ModelSet& models) {
  const at::Tensor x = at::ones({1, models.training().latent.channels, 8, 8});
  const auto pass = shard.begin(told, x, timesteps.back(), 0, ops);
  for (int block = 0; block < static_cast<int>(diffusion_blocks(models).size()); ++block)
    shard.run(block, *pass, told, ops);
  return shard.finish(*pass, told, ops);
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
  const std::vector<Conditioning> told = conditionings(models, 11);
  const auto kept = shard_of(models, true), read = shard_of(models, false);
  std::vector<ForeseenText> to_come;
  for (const Conditioning& text : told)
    for (int again = 0; again < 2; ++again) to_come.push_back({&text, 2.0, timesteps});  // two runs each
  const HostDeviceScope scope(DeviceId::cpu(0));
  HostAccount& account = HostAccount::of(DeviceId::cpu(0));
  const std::uint64_t before = account.current();
  read->foresee(to_come, ops);
  CHECK(account.current() == before);  // it waits in main memory, which is nobody's
  for (std::size_t i = 0; i < told.size(); ++i) {
    CAPTURE(i);
    account.reset_peak();
    const std::vector<ToldText> text = {{&told[i]}};
    const std::uint64_t held = account.current();
    const auto run = read->begin_run(timesteps, text, {.guidance = 2.0}, ops);
    const bool has_read = account.peak() - held > least_matrix(models);
    CHECK(has_read == (i == 8));
    CHECK(prediction(*read, *run, models)
              .equal(prediction(*kept, *kept->begin_run(timesteps, text, {.guidance = 2.0}, ops), models)));
  }
  // A text that nobody spoke of, a guidance, and one that comes again long after its turn.
  for (const auto& [conditioning, guidance] :
       {std::pair{conditionings(models, 12).back(), 2.0}, {told[10], 3.0}, {told[0], 2.0}}) {
    const std::vector<ToldText> text = {{&conditioning}};
    CHECK(prediction(*read, *read->begin_run(timesteps, text, {.guidance = guidance}, ops), models)
              .equal(prediction(*kept, *kept->begin_run(timesteps, text, {.guidance = guidance}, ops), models)));
  }
}

TEST_CASE("runs that are told the same share what comes of it, as long as one of them is there") {
  const test::Folder folder;
  for (const ModelSet& models : {test::flux_set(), test::unet_set(folder)}) {
    CAPTURE(models.is_flux());
    const std::vector<Conditioning> told = conditionings(models, 2);
    const auto shard = shard_of(models, true);
    const HostDeviceScope scope(DeviceId::cpu(0));
    HostAccount& account = HostAccount::of(DeviceId::cpu(0));
    const auto begin = [&](std::size_t text) {
      return shard->begin_run(timesteps, std::vector<ToldText>{{&told[text]}}, {}, ops);
    };
    const std::uint64_t before = account.current();
    auto first = begin(0);
    const std::uint64_t one = account.current() - before;
    CHECK(one > 0);
    const auto second = begin(0);
    CHECK(account.current() == before + one);
    first.reset();
    CHECK(account.current() == before + one);
    const auto other = begin(1);
    CHECK(account.current() == before + 2 * one);
    CHECK(prediction(*shard, *begin(0), models).equal(prediction(*shard, *second, models)));
  }
}

TEST_SUITE_END();
