#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

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
// What a GPU does, and what it finds when that is done. With more, what comes meanwhile (a picture to decode, a pass on
// its way up a UNet) would wait behind passes that nobody waits for.
constexpr int kTurnsAhead = 2;
// Of a turn's time: so much is lost where more passes would share the copies.
constexpr double kWorthSharing = 0.03;

/// Behind what the device has been given; of one that failed none, which whoever follows its passes says.
QueueMark mark_of(const DeviceId& device) {
  try {
    return QueueMark(torch_device(device));
  } catch (const c10::Error&) {
    return {};
  }
}

}  // namespace

struct Pipeline::Pass {
  std::optional<Place> place;  ///< while it is on its way: given back last, once what it holds has gone
  std::shared_ptr<Run> run;
  at::Tensor x;
  QueueMark x_given;
  double timestep = 0.0;
  std::size_t text = 0;
  std::unique_ptr<DiffusionPass> state;
  std::uint64_t came = 0;   ///< when to the stage before which it waits: numbers in order
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
    : members_(std::move(members)),
      stages_(std::move(stages)),
      ops_(ops),
      waiting_(stages_.size()),
      turns_(members_.size()),
      between_(members_.size()) {
  MGPU_CHECK(!stages_.empty() && stages_.front().first == 0, "no stage begins the model");
  for (std::size_t i = 1; i < stages_.size(); ++i) MGPU_CHECK_EQ(stages_[i].first, stages_[i - 1].last + 1);
  for (const Stage& stage : stages_) together_.push_back(first_share(stage));
}

// A task whose pass went with another's may still be queued.
Pipeline::~Pipeline() {
  {
    std::unique_lock lock(mutex_);
    pass_ends_.wait(lock, [this] { return in_flight_ == 0; });
  }
  for (const Member& member : members_)
    if (member.follower) member.follower->call([] {});
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
  const QueueMark x_given = on_device(home(), [&] { return QueueMark(torch_device(home())); });
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
  for (std::size_t next = 0; next < results.size();) {
    const Passes admitted = admit(std::span(passes).subspan(next));
    enter(0, admitted);
    next += admitted.size();
  }
  return results;
}

void Pipeline::enter(std::size_t stage, const Passes& passes) {
  const std::size_t member = stages_[stage].member;
  try {
    fault_point("enter");
    {
      const std::lock_guard lock(mutex_);
      for (const auto& pass : passes) pass->came = ++comings_;
      waiting_[stage].insert(waiting_[stage].end(), passes.begin(), passes.end());
    }
    pass_comes_.notify_all();
    for (std::size_t i = 0; i < passes.size(); ++i)  // a task each; one that finds nobody waiting has nothing to do
      members_[member].worker->post([this, member] { work(member); });
  } catch (...) {
    for (const auto& pass : passes) {
      const std::lock_guard lock(mutex_);
      std::erase(waiting_[stage], pass);
      if (pass->taken != static_cast<int>(stage)) fail(*pass, std::current_exception());
    }
  }
}

Pipeline::Turn Pipeline::take(std::size_t member) {
  std::unique_lock lock(mutex_);
  const std::optional<std::size_t> stage = next_stage(member);
  if (!stage || has_enough(member, *stage)) return {};
  std::deque<std::shared_ptr<Pass>>& waiting = waiting_[*stage];
  // Passes that went through a stage together come to the next one after another: a moment's patience keeps them so.
  const std::size_t share = share_of(*stage);
  if (waiting.size() < share) pass_comes_.wait_for(lock, kPatience, [&] { return waiting.size() >= share; });
  const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(std::min(share, waiting.size()));
  Turn out{*stage, {waiting.begin(), end}};
  waiting.erase(waiting.begin(), end);
  for (const auto& pass : out.passes) pass->taken = static_cast<int>(*stage);
  if (members_[member].follower && !out.passes.empty()) ++turns_[member];
  return out;
}

std::optional<std::size_t> Pipeline::next_stage(std::size_t member) const {
  std::optional<std::size_t> out;
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].member != member || waiting_[stage].empty()) continue;
    if (!out || waiting_[stage].front()->came < waiting_[*out].front()->came) out = stage;
  }
  return out;
}

/// Few passes do not begin a streaming stage while the device has other work: more come meanwhile.
bool Pipeline::has_enough(std::size_t member, std::size_t stage) const {
  const bool few = waiting_[stage].size() < share_of(stage);
  return turns_[member] >= (few ? 1 : kTurnsAhead);
}

std::size_t Pipeline::share_of(std::size_t stage) const {
  const std::size_t most = limit_ == kNoLimit ? in_flight_ : limit_;
  const std::size_t of_stages = (most + stages_.size() - 1) / stages_.size();
  return std::clamp<std::size_t>(together_[stage], 1, std::max<std::size_t>(of_stages, 1));
}

std::size_t Pipeline::first_share(const Stage& stage) const {
  const BlockStream* stream = members_[stage.member].stream.get();
  if (!stream) return 1;
  int blocks = 0;
  for (const Stage& own : stages_) blocks += own.member == stage.member ? own.last - own.first + 1 : 0;
  return 2 * stream->count() > blocks ? 2 : 1;
}

void Pipeline::learn(std::size_t stage, std::size_t passes, double waited) {
  // A turn from before the last lesson has nothing to teach.
  if (passes == together_[stage] && waited > kWorthSharing) together_[stage] = 2 * passes;
}

void Pipeline::work(std::size_t member) {
  if (const std::function<void()> other = take_between(member)) {
    other();
    members_[member].worker->post([this, member] { work(member); });
    return;
  }
  const Turn turn = take(member);
  if (turn.passes.empty()) return;
  const Member& own = members_[member];
  std::shared_ptr<CopyWaits> waits = go_through(turn);
  if (own.follower) {
    follow_turn(turn.stage, turn.passes.size(), std::move(waits));
  } else if (own.stream) {  // a CPU copies blocks itself
    const std::lock_guard lock(mutex_);
    learn(turn.stage, turn.passes.size(), 1.0);
  }
}

void Pipeline::between_passes(const DeviceId& device, std::function<void()> work) {
  const auto own = std::ranges::find(members_, device, &Member::device);
  MGPU_CHECK(own != members_.end(), "{} is no member", device.to_string());
  const auto member = static_cast<std::size_t>(own - members_.begin());
  {
    const std::lock_guard lock(mutex_);
    between_[member].push_back({++comings_, std::move(work)});
  }
  own->worker->post([this, member] { this->work(member); });
}

std::function<void()> Pipeline::take_between(std::size_t member) {
  const std::lock_guard lock(mutex_);
  std::deque<Between>& between = between_[member];
  if (between.empty()) return {};
  const std::optional<std::size_t> stage = next_stage(member);
  if (stage && waiting_[*stage].front()->came < between.front().came) return {};
  std::function<void()> work = std::move(between.front().work);
  between.pop_front();
  return work;
}

std::shared_ptr<CopyWaits> Pipeline::waits_of(const Member& member) {
  if (!member.follower || !member.stream) return nullptr;
  fault_point("copy waits");
  return std::make_shared<CopyWaits>(torch_device(member.device));
}

std::shared_ptr<CopyWaits> Pipeline::go_through(const Turn& turn) {
  const Stage& stage = stages_[turn.stage];
  const Member& member = members_[stage.member];
  std::shared_ptr<CopyWaits> waits;
  try {
    on_device(member.device, [&] {
      fault_point("stage");
      if (turn.stage == 0)
        for (const auto& pass : turn.passes) pass->x_given.precede_current_stream(torch_device(member.device));
      const Meter::Busy busy(*member.meter);
      waits = waits_of(member);
      if (turn.stage == 0)
        for (const auto& pass : turn.passes)
          pass->state = member.shard->begin(*pass->run->told_[stage.member], pass->x, pass->timestep, pass->text, ops_);
      run_blocks(stage, turn.passes, waits.get());
    });
  } catch (...) {
    for (const auto& pass : turn.passes) fail(*pass, std::current_exception());
    return nullptr;
  }
  for (const auto& pass : turn.passes) {
    try {
      on_device(member.device, [&] { leave(turn.stage, pass); });
    } catch (...) {
      fail(*pass, std::current_exception());
    }
  }
  return waits;
}

void Pipeline::follow_turn(std::size_t stage, std::size_t passes, std::shared_ptr<const CopyWaits> waits) {
  const std::size_t member = stages_[stage].member;
  const QueueMark end = mark_of(members_[member].device);
  members_[member].follower->post([this, member, stage, passes, end, waits = std::move(waits)] {
    double waited = 0.0;
    try {
      end.wait();
      if (waits) waited = waits->share();
    } catch (const c10::Error&) {  // whoever follows its passes says so
    }
    {
      const std::lock_guard lock(mutex_);
      --turns_[member];
      learn(stage, passes, waited);
    }
    members_[member].worker->post([this, member] { work(member); });
  });
}

void Pipeline::run_blocks(const Stage& stage, const Passes& passes, CopyWaits* waits) {
  const Member& member = members_[stage.member];
  for (int block = stage.first; block <= stage.last; ++block) {
    const BlockStream::Use use(member.stream.get(), block, waits);
    for (const auto& pass : passes) {
      member.shard->run(block, *pass->state, *pass->run->told_[stage.member], ops_);
      ++pass->blocks[stage.member];
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
  const Member &from = members_[stage.member], &to = members_[stages_[index + 1].member];
  const auto way = std::make_shared<HandOver>(torch_device(from.device), torch_device(to.device));
  if (&from != &to)
    for (at::Tensor* tensor : pass->state->travelling()) *tensor = send(*way, *tensor, from, to);
  follow(from, to, way, pass, [this, index, pass] { enter(index + 1, {pass}); });
}

void Pipeline::finish(const Stage& stage, const std::shared_ptr<Pass>& pass) {
  fault_point("finish");
  const Member &last = members_[stage.member], &home = members_[stages_.front().member];
  at::Tensor prediction;
  {
    const Meter::Busy busy(*last.meter);
    prediction = last.shard->finish(*pass->state, *pass->run->told_[stage.member], ops_);
    prediction = prediction.to(pass->x.scalar_type());
  }
  const auto way = std::make_shared<HandOver>(torch_device(last.device), torch_device(home.device));
  if (&last != &home) prediction = send(*way, prediction, last, home);
  follow(last, home, way, pass, [this, pass, prediction] { succeed(*pass, prediction); });
}

at::Tensor Pipeline::send(HandOver& way, const at::Tensor& tensor, const Member& from, const Member& to) {
  return on_device(to.device, [&] {
    fault_point("hand over");
    const HostDeviceScope scope(to.device);
    if (tensor.defined()) to.meter->received(from.device, tensor.nbytes());
    return way.send(tensor);
  });
}

void Pipeline::follow(const Member& from, const Member& to, std::shared_ptr<HandOver> way, std::shared_ptr<Pass> pass,
                      std::function<void()> then) {
  if (!from.follower) {
    then();
    return;
  }
  from.follower->post([&from, &to, way = std::move(way), pass = std::move(pass), then = std::move(then)] {
    try {
      fault_point("follow");
      on_device(from.device, [&] { way->wait_for_source(); });
      on_device(to.device, [&] { way->wait(); });
    } catch (...) {
      fail(*pass, std::current_exception());
      return;
    }
    then();
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
