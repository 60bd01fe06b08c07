#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "shard/device_error.h"

namespace mgpu {

struct Pipeline::Pass {
  Pass(Pipeline& pipeline, std::shared_ptr<Run> of, const at::Tensor& input, double at, std::size_t told)
      : place(pipeline), run(std::move(of)), x(input), timestep(at), text(told), blocks(pipeline.members_.size(), 0) {}

  Place place;  ///< given back last, once what it holds has gone
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

Pipeline::~Pipeline() {
  std::unique_lock lock(mutex_);
  pass_ends_.wait(lock, [this] { return passes_ == 0; });
}

void Pipeline::limit(std::size_t passes) {
  const std::lock_guard lock(mutex_);
  limit_ = passes;
}

Pipeline::Place::Place(Pipeline& pipeline) : pipeline_(pipeline) {
  std::unique_lock lock(pipeline_.mutex_);
  pipeline_.pass_ends_.wait(lock, [this] { return pipeline_.passes_ < pipeline_.limit_; });
  ++pipeline_.passes_;
}

Pipeline::Place::~Place() {
  const std::lock_guard lock(pipeline_.mutex_);  // held while it notifies: the pipeline may go right after
  --pipeline_.passes_;
  pipeline_.pass_ends_.notify_all();
}

std::shared_ptr<Pipeline::Run> Pipeline::begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                                                   const RunFacts& facts) {
  auto run = std::make_shared<Run>();
  run->told_.resize(members_.size());
  Together beginnings;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    if (!member.shard) continue;
    fault_point("run");
    beginnings.begin(*member.worker, [&, i] {
      on_device(member.id, [&] {
        fault_point("begin run");
        run->told_[i] = member.shard->begin_run(timesteps, texts, facts, ops_);
      });
    });
  }
  beginnings.finish();
  return run;
}

std::future<at::Tensor> Pipeline::submit(const std::shared_ptr<Run>& run, const at::Tensor& x, double timestep,
                                         std::size_t text) {
  auto pass = std::make_shared<Pass>(*this, run, x, timestep, text);
  std::future<at::Tensor> result = pass->result.get_future();
  enter(0, pass);
  return result;
}

void Pipeline::enter(std::size_t stage, const std::shared_ptr<Pass>& pass) {
  fault_point("enter");
  const Member& member = members_[stages_[stage].member];
  member.worker->post([this, &member, stage, pass] {
    try {
      on_device(member.id, [&] { work(stage, pass); });
    } catch (...) {
      pass->result.set_exception(std::current_exception());
    }
  });
}

void Pipeline::work(std::size_t index, const std::shared_ptr<Pass>& pass) {
  fault_point("stage");
  const Stage& stage = stages_[index];
  const Member& member = members_[stage.member];
  const Meter::Busy busy(*member.meter);
  DiffusionShard::Told& told = *pass->run->told_[stage.member];
  if (index == 0) pass->state = member.shard->begin(told, pass->x, pass->timestep, pass->text, ops_);
  for (int block = stage.first; block <= stage.last; ++block, ++pass->blocks[stage.member])
    member.shard->run(block, *pass->state, told, pass->timestep, pass->text, ops_);
  if (index + 1 == stages_.size()) {
    complete(*pass, member);
    return;
  }
  const std::size_t next = stages_[index + 1].member;
  if (next != stage.member) travel(*pass, members_[next]);
  enter(index + 1, pass);
}

/// The copies lie on the device that they go to, which answers for them.
void Pipeline::travel(Pass& pass, const Member& to) {
  on_device(to.id, [&] {
    for (at::Tensor* tensor : pass.state->travelling()) {
      fault_point("hand over");
      *tensor = hand_over(*tensor, to.device);
    }
  });
}

void Pipeline::complete(Pass& pass, const Member& last) {
  fault_point("finish");
  DiffusionShard::Told& told = *pass.run->told_[stages_.back().member];
  at::Tensor prediction = last.shard->finish(*pass.state, told, pass.timestep, pass.text, ops_);
  prediction = prediction.to(pass.x.scalar_type());
  if (prediction.device() != pass.x.device()) prediction = hand_over(prediction, pass.x.device());
  pass.state.reset();
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (pass.blocks[i] > 0) members_[i].meter->pass_done(pass.blocks[i]);
  pass.result.set_value(std::move(prediction));
}

}  // namespace mgpu
