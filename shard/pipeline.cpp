#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>

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
    : members_(std::move(members)), stages_(std::move(stages)), ops_(ops), waiting_(stages_.size()) {
  MGPU_CHECK(!stages_.empty() && stages_.front().first == 0, "no stage begins the model");
  for (std::size_t i = 1; i < stages_.size(); ++i) MGPU_CHECK_EQ(stages_[i].first, stages_[i - 1].last + 1);
}

// A task whose pass went with another's may still be queued.
Pipeline::~Pipeline() {
  for (const Member& member : members_) member.worker->call([] {});
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

std::vector<std::future<at::Tensor>> Pipeline::submit(const std::shared_ptr<Run>& run,
                                                      std::span<const Evaluation> evaluations, double timestep) {
  Passes passes;
  std::vector<std::future<at::Tensor>> results;
  for (const Evaluation& evaluation : evaluations) {
    auto pass = std::make_shared<Pass>();
    pass->run = run;
    pass->x = evaluation.x;
    pass->timestep = timestep;
    pass->text = evaluation.text;
    pass->blocks.resize(members_.size());
    results.push_back(pass->result.get_future());
    passes.push_back(std::move(pass));
  }
  {
    const std::lock_guard lock(mutex_);
    in_flight_ += passes.size();
  }
  enter(0, passes);
  return results;
}

void Pipeline::enter(std::size_t stage, const Passes& passes) {
  {
    const std::lock_guard lock(mutex_);
    waiting_[stage].insert(waiting_[stage].end(), passes.begin(), passes.end());
  }
  for (std::size_t i = 0; i < passes.size(); ++i)  // a task each; one that finds nobody waiting has nothing to do
    members_[stages_[stage].member].worker->post([this, stage] { work(stage, take(stage)); });
}

Pipeline::Passes Pipeline::take(std::size_t stage) {
  const std::lock_guard lock(mutex_);
  // A streamed block serves as many passes as leave the other stages their share of work.
  const bool streams = members_[stages_[stage].member].stream != nullptr;
  const std::size_t share = streams ? (in_flight_ + stages_.size() - 1) / stages_.size() : 1;
  std::deque<std::shared_ptr<Pass>>& waiting = waiting_[stage];
  const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(std::min(share, waiting.size()));
  Passes out(waiting.begin(), end);
  waiting.erase(waiting.begin(), end);
  return out;
}

void Pipeline::work(std::size_t index, const Passes& passes) {
  if (passes.empty()) return;
  const Stage& stage = stages_[index];
  const Member& member = members_[stage.member];
  const Meter::Busy busy(*member.meter);
  try {
    if (index == 0)
      for (const auto& pass : passes)
        pass->state = member.shard->begin(*pass->run->told_[stage.member], pass->x, pass->timestep, pass->text, ops_);
    run_blocks(stage, passes);
  } catch (...) {
    for (const auto& pass : passes) fail(*pass, std::current_exception());
    return;
  }
  for (const auto& pass : passes) {
    try {
      leave(index, pass);
    } catch (...) {
      fail(*pass, std::current_exception());
    }
  }
}

void Pipeline::run_blocks(const Stage& stage, const Passes& passes) {
  const Member& member = members_[stage.member];
  for (int block = stage.first; block <= stage.last; ++block) {
    const BlockStream::Use use(member.stream.get(), block);
    for (const auto& pass : passes) {
      member.shard->run(block, *pass->state, *pass->run->told_[stage.member], pass->timestep, pass->text, ops_);
      ++pass->blocks[stage.member];
    }
  }
}

void Pipeline::leave(std::size_t index, const std::shared_ptr<Pass>& pass) {
  const Stage& stage = stages_[index];
  const Member& member = members_[stage.member];
  if (index + 1 < stages_.size()) {
    const Member& next = members_[stages_[index + 1].member];
    if (stages_[index + 1].member != stage.member) {
      for (at::Tensor* tensor : pass->state->travelling()) *tensor = hand_over(*tensor, next.device);
    }
    enter(index + 1, {pass});
    return;
  }
  DiffusionShard::Told& told = *pass->run->told_[stage.member];
  at::Tensor prediction = member.shard->finish(*pass->state, told, pass->timestep, pass->text, ops_);
  prediction = prediction.to(pass->x.scalar_type());
  if (prediction.device() != pass->x.device()) prediction = hand_over(prediction, pass->x.device());
  pass->state.reset();
  succeed(*pass, std::move(prediction));
}

void Pipeline::succeed(Pass& pass, at::Tensor prediction) {
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (pass.blocks[i] > 0) members_[i].meter->pass_done(pass.blocks[i]);
  {
    const std::lock_guard lock(mutex_);
    --in_flight_;
  }
  pass.result.set_value(std::move(prediction));
}

void Pipeline::fail(Pass& pass, const std::exception_ptr& error) {
  {
    const std::lock_guard lock(mutex_);
    --in_flight_;
  }
  pass.state.reset();
  pass.result.set_exception(error);
}

}  // namespace mgpu
