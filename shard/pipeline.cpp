#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "core/error.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "shard/device_error.h"

namespace mgpu {
namespace {

// A streamed block costs a multiple of this, and a sampler's step less.
constexpr std::chrono::milliseconds kPatience{3};

}  // namespace

struct Pipeline::Pass {
  std::optional<Place> place;  ///< while it is on its way: given back last, once what it holds has gone
  std::shared_ptr<Run> run;
  at::Tensor x;
  double timestep = 0.0;
  std::size_t text = 0;
  std::unique_ptr<DiffusionPass> state;
  int taken = -1;           ///< the stage that took it last
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
    : members_(std::move(members)), stages_(std::move(stages)), ops_(ops), waiting_(stages_.size()) {
  MGPU_CHECK(!stages_.empty() && stages_.front().first == 0, "no stage begins the model");
  for (std::size_t i = 1; i < stages_.size(); ++i) MGPU_CHECK_EQ(stages_[i].first, stages_[i - 1].last + 1);
}

// A task whose pass went with another's may still be queued.
Pipeline::~Pipeline() {
  {
    std::unique_lock lock(mutex_);
    pass_ends_.wait(lock, [this] { return in_flight_ == 0; });
  }
  for (const Member& member : members_) member.worker->call([] {});
}

std::uint64_t Pipeline::lent_bytes(const DeviceId& donor) const {
  std::uint64_t out = 0;
  for (const Member& member : members_) out += member.stream ? member.stream->lent_bytes(donor) : 0;
  return out;
}

void Pipeline::limit(std::size_t passes) {
  const std::lock_guard lock(mutex_);
  limit_ = passes;
}

Pipeline::Place::~Place() {
  const std::lock_guard lock(pipeline_.mutex_);  // held while it notifies: the pipeline may go right after
  --pipeline_.in_flight_;
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
      on_device(member.device, [&] {
        fault_point("begin run");
        run->told_[i] = member.shard->begin_run(timesteps, texts, facts, ops_);
      });
    });
  }
  beginnings.finish();
  return run;
}

Pipeline::Passes Pipeline::admit(std::span<std::shared_ptr<Pass>> passes) {
  Passes out;
  out.reserve(passes.size());
  std::unique_lock lock(mutex_);
  pass_ends_.wait(lock, [this] { return in_flight_ < limit_; });
  for (std::shared_ptr<Pass>& pass : passes.first(std::min(passes.size(), limit_ - in_flight_))) {
    pass->place.emplace(*this);
    out.push_back(std::move(pass));
  }
  return out;
}

std::vector<std::future<at::Tensor>> Pipeline::submit(const std::shared_ptr<Run>& run,
                                                      std::span<const Evaluation> evaluations, double timestep) {
  Passes passes;
  std::vector<std::future<at::Tensor>> results;
  for (const Evaluation& evaluation : evaluations) {
    const auto pass = std::make_shared<Pass>();
    pass->run = run;
    pass->x = evaluation.x;
    pass->timestep = timestep;
    pass->text = evaluation.text;
    pass->blocks.resize(members_.size());
    results.push_back(pass->result.get_future());
    passes.push_back(pass);
  }
  // From here on nothing throws: who submits waits for every result.
  for (std::size_t next = 0; next < results.size();) {
    const Passes admitted = admit(std::span(passes).subspan(next));
    enter(0, admitted);
    next += admitted.size();
  }
  return results;
}

void Pipeline::enter(std::size_t stage, const Passes& passes) {
  try {
    fault_point("enter");
    {
      const std::lock_guard lock(mutex_);
      waiting_[stage].insert(waiting_[stage].end(), passes.begin(), passes.end());
    }
    pass_comes_.notify_all();
    for (std::size_t i = 0; i < passes.size(); ++i)  // a task each; one that finds nobody waiting has nothing to do
      members_[stages_[stage].member].worker->post([this, stage] { work(stage, take(stage)); });
  } catch (...) {
    for (const auto& pass : passes) {
      const std::lock_guard lock(mutex_);
      std::erase(waiting_[stage], pass);
      if (pass->taken != static_cast<int>(stage)) fail(*pass, std::current_exception());
    }
  }
}

Pipeline::Passes Pipeline::take(std::size_t stage) {
  std::unique_lock lock(mutex_);
  std::deque<std::shared_ptr<Pass>>& waiting = waiting_[stage];
  const std::size_t share = share_of(stage);
  // Passes that went through a stage together come to the next one after another: a moment's patience keeps them so.
  if (!waiting.empty() && waiting.size() < share)
    pass_comes_.wait_for(lock, kPatience, [&] { return waiting.size() >= share; });
  const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(std::min(share, waiting.size()));
  Passes out(waiting.begin(), end);
  waiting.erase(waiting.begin(), end);
  for (const auto& pass : out) pass->taken = static_cast<int>(stage);
  return out;
}

std::size_t Pipeline::share_of(std::size_t stage) const {
  if (!members_[stages_[stage].member].stream) return 1;
  const std::size_t most = limit_ == kNoLimit ? in_flight_ : limit_;
  return (most + stages_.size() - 1) / stages_.size();
}

void Pipeline::work(std::size_t index, const Passes& passes) {
  if (passes.empty()) return;
  const Stage& stage = stages_[index];
  const Member& member = members_[stage.member];
  const Meter::Busy busy(*member.meter);
  try {
    on_device(member.device, [&] {
      fault_point("stage");
      if (index == 0)
        for (const auto& pass : passes)
          pass->state = member.shard->begin(*pass->run->told_[stage.member], pass->x, pass->timestep, pass->text, ops_);
      run_blocks(stage, passes);
    });
  } catch (...) {
    for (const auto& pass : passes) fail(*pass, std::current_exception());
    return;
  }
  for (const auto& pass : passes) {
    try {
      on_device(member.device, [&] { leave(index, pass); });
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
      member.shard->run(block, *pass->state, *pass->run->told_[stage.member], ops_);
      ++pass->blocks[stage.member];
    }
  }
}

void Pipeline::leave(std::size_t index, const std::shared_ptr<Pass>& pass) {
  const Stage& stage = stages_[index];
  if (index + 1 < stages_.size()) {
    const std::size_t next = stages_[index + 1].member;
    if (next != stage.member) travel(*pass, members_[next]);
    enter(index + 1, {pass});
    return;
  }
  fault_point("finish");
  DiffusionShard::Told& told = *pass->run->told_[stage.member];
  at::Tensor prediction = members_[stage.member].shard->finish(*pass->state, told, ops_);
  prediction = prediction.to(pass->x.scalar_type());
  const Member& home = members_[stages_.front().member];
  if (&members_[stage.member] != &home) prediction = handed_over(prediction, home);
  succeed(*pass, std::move(prediction));
}

void Pipeline::travel(Pass& pass, const Member& to) {
  on_device(to.device, [&] {
    for (at::Tensor* tensor : pass.state->travelling()) {
      fault_point("hand over");
      *tensor = handed_over(*tensor, to);
    }
  });
}

at::Tensor Pipeline::handed_over(const at::Tensor& tensor, const Member& to) {
  return on_device(to.device, [&] {
    const HostDeviceScope scope(to.device);
    return hand_over(tensor, torch_device(to.device));
  });
}

void Pipeline::succeed(Pass& pass, at::Tensor prediction) {
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (pass.blocks[i] > 0) members_[i].meter->pass_done(pass.blocks[i]);
  pass.let_go();
  pass.result.set_value(std::move(prediction));
}

void Pipeline::fail(Pass& pass, const std::exception_ptr& error) {
  pass.let_go();
  pass.result.set_exception(error);
}

}  // namespace mgpu
