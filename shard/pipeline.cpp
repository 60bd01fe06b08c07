#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/cancel.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "core/stop_point.h"
#include "shard/device_error.h"
#include "shard/pipeline_pass.h"

namespace mgpu {

Pipeline::Pipeline(std::vector<Member> members, std::vector<Stage> stages)
    : members_(std::move(members)),
      stages_(std::move(stages)),
      waiting_(stages_.size()),
      batches_(members_.size()),
      interleaved_(members_.size()) {
  MGPU_CHECK(!stages_.empty() && stages_.front().first == 0, "no stage begins the model");
  for (std::size_t i = 1; i < stages_.size(); ++i) MGPU_CHECK_EQ(stages_[i].first, stages_[i - 1].last + 1);
  for (const Stage& stage : stages_) {
    MGPU_CHECK_EQ(stage.group.size(), std::size_t{1});
    together_.push_back(first_share(stage));
  }
}

Pipeline::~Pipeline() {
  std::unique_lock lock(mutex_);
  pass_ends_.wait(lock, [this] { return in_flight_ == 0 && tasks_ == 0; });
}

std::uint64_t Pipeline::offloaded_bytes(const DeviceId& donor) const {
  std::uint64_t out = 0;
  for (const Member& member : members_) out += member.stream ? member.stream->offloaded_bytes(donor) : 0;
  return out;
}

void Pipeline::limit(std::size_t passes) {
  const std::lock_guard lock(mutex_);
  limit_ = passes;
}

Pipeline::Slot::~Slot() {
  const std::lock_guard lock(pipeline_.mutex_);  // held while it notifies: the pipeline may go right after
  --pipeline_.in_flight_;
  pipeline_.pass_ends_.notify_all();
}

void Pipeline::post(Worker& worker, std::function<void()> task) {
  worker.post([count = std::make_shared<Task>(*this), task = std::move(task)]() mutable {
    task();
    task = nullptr;  // before it counts as gone
  });
}

std::shared_ptr<Pipeline::Run> Pipeline::begin_run(std::span<const double> timesteps,
                                                   std::span<const RunConditioning> texts, const RunFacts& facts) {
  auto run = std::make_shared<Run>();
  run->states_.resize(members_.size());
  Together beginnings;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    if (!member.shard) continue;
    fault_point("run");
    beginnings.begin(*member.worker, [&, i] {
      on_device(member.device, [&] {
        fault_point("begin run");
        run->states_[i] = member.shard->begin_run(timesteps, texts, facts, *member.ops);
      });
    });
  }
  beginnings.finish();
  return run;
}

std::size_t Pipeline::admit(std::span<const std::shared_ptr<Pass>> passes) {
  std::unique_lock lock(mutex_);
  pass_ends_.wait(lock, [this] { return in_flight_ < limit_; });
  const std::size_t count = std::min(passes.size(), limit_ - in_flight_);
  for (const auto& pass : passes.first(count)) pass->slot.emplace(*this);
  return count;
}

std::vector<std::future<at::Tensor>> Pipeline::submit(const std::shared_ptr<Run>& run,
                                                      std::span<const Evaluation> evaluations, double timestep) {
  stop_if_requested();
  Passes passes;
  std::vector<std::future<at::Tensor>> results;
  const QueueMark x_given = on_device(latent_device(), [&] { return QueueMark(torch_device(latent_device())); });
  for (const Evaluation& evaluation : evaluations) {
    const auto pass = std::make_shared<Pass>();
    pass->run = run;
    pass->x = evaluation.x;
    pass->x_given = x_given;
    pass->timestep = timestep;
    pass->text = evaluation.text;
    pass->blocks.resize(members_.size());
    results.push_back(pass->result.get_future());
    passes.push_back(pass);
  }
  // From here on nothing throws: who submits waits for every result.
  for (std::size_t next = 0; next < passes.size();) {
    const std::size_t count = admit(std::span(passes).subspan(next));
    enter(0, std::span(passes).subspan(next, count));
    for (const std::size_t end = next + count; next < end; ++next) passes[next].reset();
  }
  return results;
}

void Pipeline::enter(std::size_t stage, std::span<const std::shared_ptr<Pass>> passes) noexcept {
  const std::size_t member = stages_[stage].lead();
  std::exception_ptr error;
  try {
    fault_point("enter");
    const std::lock_guard lock(mutex_);
    for (const auto& pass : passes) pass->came = ++comings_;
    waiting_[stage].insert(waiting_[stage].end(), passes.begin(), passes.end());
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    for (const auto& pass : passes) fail(*pass, error);
    return;
  }
  pass_comes_.notify_all();
  // A task each; one that finds nobody waiting has nothing to do.
  std::size_t posted = 0;
  while (posted < passes.size() && !(error = wake(member))) ++posted;
  if (!error) return;
  std::size_t failed = 0;
  for (const auto& pass : passes) {
    std::size_t found = 0;
    {
      const std::lock_guard lock(mutex_);
      found = std::erase(waiting_[stage], pass);
    }
    if (found > 0) fail(*pass, error);  // the others were taken, and may have gone further
    failed += found;
  }
  // Taken by more tasks than their own: whoever these were posted for still waits.
  for (std::size_t taken = posted; taken + failed < passes.size(); ++taken) look_again(member);
}

std::shared_ptr<CopyWaits> Pipeline::waits_of(const Member& member) {
  if (!member.follower || !member.stream) return nullptr;
  fault_point("copy waits");
  return std::make_shared<CopyWaits>(torch_device(member.device));
}

std::shared_ptr<CopyWaits> Pipeline::go_through(const Batch& batch) noexcept {
  const Stage& stage = stages_[batch.stage];
  const Member& member = members_[stage.lead()];
  std::shared_ptr<CopyWaits> waits;
  try {
    on_device(member.device, [&] {
      stop_if_requested();
      fault_point("stage");
      if (batch.stage == 0)
        for (const auto& pass : batch.passes) pass->x_given.precede_current_stream(torch_device(member.device));
      const Meter::Busy busy(*member.meter);
      waits = waits_of(member);
      if (batch.stage == 0)
        for (const auto& pass : batch.passes)
          pass->state =
              member.shard->begin(*pass->run->states_[stage.lead()], pass->x, pass->timestep, pass->text, *member.ops);
      run_blocks(stage, batch.passes, waits.get());
    });
  } catch (...) {
    for (const auto& pass : batch.passes) fail(*pass, std::current_exception());
    return nullptr;
  }
  for (const auto& pass : batch.passes) {
    try {
      on_device(member.device, [&] { leave(batch.stage, pass); });
    } catch (...) {
      fail(*pass, std::current_exception());
    }
  }
  return waits;
}

void Pipeline::run_blocks(const Stage& stage, const Passes& passes, CopyWaits* waits) {
  const Member& member = members_[stage.lead()];
  for (int block = stage.first; block <= stage.last; ++block) {
    const BlockStream::Use use(member.stream.get(), block, waits);
    for (const auto& pass : passes) {
      stop_point(torch_device(member.device));
      member.shard->run(block, *pass->state, *pass->run->states_[stage.lead()], *member.ops);
      ++pass->blocks[stage.lead()];
    }
  }
  if (waits) waits->end();
}

void Pipeline::leave(std::size_t index, const std::shared_ptr<Pass>& pass) {
  const Stage& stage = stages_[index];
  if (index + 1 == stages_.size()) {
    finish(stage, pass);
    return;
  }
  const Member &from = members_[stage.lead()], &to = members_[stages_[index + 1].lead()];
  const auto transfer = std::make_shared<HandOver>(torch_device(from.device), torch_device(to.device));
  if (&from != &to)
    for (at::Tensor* tensor : pass->state->travelling()) *tensor = send(*transfer, *tensor, from, to);
  follow(from, to, transfer, pass, [this, index, pass] { enter(index + 1, {&pass, 1}); });
}

void Pipeline::finish(const Stage& stage, const std::shared_ptr<Pass>& pass) {
  fault_point("finish");
  const Member &last = members_[stage.lead()], &first = members_[stages_.front().lead()];
  at::Tensor prediction;
  {
    const Meter::Busy busy(*last.meter);
    prediction = last.shard->finish(*pass->state, *pass->run->states_[stage.lead()], *last.ops);
    prediction = prediction.to(pass->x.scalar_type());
  }
  const auto transfer = std::make_shared<HandOver>(torch_device(last.device), torch_device(first.device));
  if (&last != &first) prediction = send(*transfer, prediction, last, first);
  follow(last, first, transfer, pass, [this, pass, prediction] { succeed(*pass, prediction); });
}

at::Tensor Pipeline::send(HandOver& transfer, const at::Tensor& tensor, const Member& from, const Member& to) {
  return on_device(to.device, [&] {
    fault_point("hand over");
    const HostDeviceScope scope(to.device);
    if (tensor.defined()) to.meter->received(from.device, tensor.nbytes());
    return transfer.send(tensor);
  });
}

void Pipeline::follow(const Member& from, const Member& to, std::shared_ptr<HandOver> transfer,
                      std::shared_ptr<Pass> pass, std::function<void()> then) {
  if (!from.follower) {
    then();
    return;
  }
  post(*from.follower, [&from, &to, transfer = std::move(transfer), pass = std::move(pass), then = std::move(then)] {
    try {
      fault_point("follow");
      on_device(from.device, [&] { transfer->wait_for_source(); });
      on_device(to.device, [&] { transfer->wait(); });
      then();
    } catch (...) {
      fail(*pass, std::current_exception());
    }
  });
}

void Pipeline::succeed(Pass& pass, at::Tensor prediction) {
  if (pass.has_result.exchange(true)) return;
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (pass.blocks[i] > 0) members_[i].meter->pass_done(pass.blocks[i]);
  pass.let_go();
  pass.result.set_value(std::move(prediction));
}

void Pipeline::fail(Pass& pass, const std::exception_ptr& error) noexcept {
  if (pass.has_result.exchange(true)) return;
  pass.let_go();
  pass.result.set_exception(error);
}

}  // namespace mgpu
