#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/hand_over.h"
#include "core/memory.h"

namespace mgpu {

struct Pipeline::Pass {
  std::shared_ptr<Run> run;
  at::Tensor x;
  double timestep = 0.0;
  std::size_t text = 0;
  std::unique_ptr<DiffusionPass> state;
  std::vector<int> blocks;  ///< executed, by member
  std::promise<at::Tensor> result;
};

Pipeline::Pipeline(std::vector<Member> members, std::vector<Stage> stages, const Ops& ops)
    : members_(std::move(members)), stages_(std::move(stages)), ops_(ops) {
  MGPU_CHECK(!stages_.empty() && stages_.front().first == 0, "no stage begins the model");
  for (std::size_t i = 1; i < stages_.size(); ++i) MGPU_CHECK_EQ(stages_[i].first, stages_[i - 1].last + 1);
}

std::shared_ptr<Pipeline::Run> Pipeline::begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                                                   const RunFacts& facts) {
  auto run = std::make_shared<Run>();
  for (const Member& member : members_) {
    run->told_.push_back(
        member.shard ? member.worker->call([&] { return member.shard->begin_run(timesteps, texts, facts, ops_); })
                     : nullptr);
  }
  return run;
}

std::future<at::Tensor> Pipeline::submit(const std::shared_ptr<Run>& run, const at::Tensor& x, double timestep,
                                         std::size_t text) {
  auto pass = std::make_shared<Pass>(
      Pass{run, x, timestep, text, nullptr, std::vector<int>(members_.size(), 0), std::promise<at::Tensor>()});
  std::future<at::Tensor> result = pass->result.get_future();
  enter(0, pass);
  return result;
}

void Pipeline::enter(std::size_t stage, const std::shared_ptr<Pass>& pass) {
  members_[stages_[stage].member].worker->post([this, stage, pass] {
    try {
      work(stage, pass);
    } catch (...) {
      pass->result.set_exception(std::current_exception());
    }
  });
}

void Pipeline::work(std::size_t index, const std::shared_ptr<Pass>& pass) {
  const Stage& stage = stages_[index];
  const Member& member = members_[stage.member];
  const Meter::Busy busy(*member.meter);
  DiffusionShard::Told& told = *pass->run->told_[stage.member];
  if (index == 0) pass->state = member.shard->begin(told, pass->x, pass->timestep, pass->text, ops_);
  for (int block = stage.first; block <= stage.last; ++block, ++pass->blocks[stage.member])
    member.shard->run(block, *pass->state, told, pass->timestep, pass->text, ops_);
  if (index + 1 < stages_.size()) {
    const Member& next = members_[stages_[index + 1].member];
    if (stages_[index + 1].member != stage.member) {
      for (at::Tensor* tensor : pass->state->travelling()) *tensor = hand_over(*tensor, next.device);
    }
    enter(index + 1, pass);
    return;
  }
  at::Tensor prediction = member.shard->finish(*pass->state, told, pass->timestep, pass->text, ops_);
  prediction = prediction.to(pass->x.scalar_type());
  if (prediction.device() != pass->x.device()) prediction = hand_over(prediction, pass->x.device());
  pass->state.reset();
  complete(*pass);
  pass->result.set_value(std::move(prediction));
}

void Pipeline::complete(Pass& pass) {
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (pass.blocks[i] > 0) members_[i].meter->pass_done(pass.blocks[i]);
}

}  // namespace mgpu
