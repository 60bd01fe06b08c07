#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
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

  /// Before the result is there: tasks that are just ending hold the pass a little longer than who waits for it.
  void let_go() {
    state.reset();
    run.reset();
    x.reset();
  }
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
      pass->let_go();
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
      for (at::Tensor* tensor : pass->state->travelling()) *tensor = moved(*tensor, next.device);
    }
    enter(index + 1, pass);
    return;
  }
  at::Tensor prediction = member.shard->finish(*pass->state, told, pass->timestep, pass->text, ops_);
  prediction = prediction.to(pass->x.scalar_type());
  if (member.device != home()) prediction = moved(prediction, home());
  complete(*pass);
  pass->let_go();
  pass->result.set_value(std::move(prediction));
}

at::Tensor Pipeline::moved(const at::Tensor& tensor, const DeviceId& to) {
  const HostDeviceScope scope(to);
  return hand_over(tensor, torch_device(to));
}

void Pipeline::complete(Pass& pass) {
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (pass.blocks[i] > 0) members_[i].meter->pass_done(pass.blocks[i]);
}

}  // namespace mgpu
