#include "shard/pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "core/cancel.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "core/stop_point.h"
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
QueueMark mark_of(const DeviceId& device) noexcept {
  try {
    return QueueMark(torch_device(device));
  } catch (...) {
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
  std::vector<int> blocks;  ///< executed, by member
  std::promise<at::Tensor> result;
  std::atomic<bool> has_result = false;  ///< the first one counts

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

Pipeline::~Pipeline() {
  std::unique_lock lock(mutex_);
  pass_ends_.wait(lock, [this] { return in_flight_ == 0 && tasks_ == 0; });
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

class Pipeline::Task {
 public:
  explicit Task(Pipeline& pipeline) : pipeline_(pipeline) {
    const std::lock_guard lock(pipeline_.mutex_);
    ++pipeline_.tasks_;
  }
  ~Task() {
    const std::lock_guard lock(pipeline_.mutex_);  // as Place's
    --pipeline_.tasks_;
    pipeline_.pass_ends_.notify_all();
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

 private:
  Pipeline& pipeline_;
};

void Pipeline::post(Worker& worker, std::function<void()> task) {
  worker.post([count = std::make_shared<Task>(*this), task = std::move(task)]() mutable {
    task();
    task = nullptr;  // before it counts as gone
  });
}

std::exception_ptr Pipeline::wake(std::size_t member) noexcept {
  try {
    post(*members_[member].worker, [this, member] { work(member); });
    return nullptr;
  } catch (...) {
    return std::current_exception();
  }
}

void Pipeline::drop_waiting(std::size_t member, const std::exception_ptr& error) noexcept {
  // One by one: there may be no memory for a list of them.
  while (std::optional<Between> between = take_between(member, Turns::Any)) between->done.set_exception(error);
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].member != member) continue;
    while (const std::shared_ptr<Pass> pass = take_first(stage)) fail(*pass, error);
  }
}

std::shared_ptr<Pipeline::Pass> Pipeline::take_first(std::size_t stage) noexcept {
  const std::lock_guard lock(mutex_);
  if (waiting_[stage].empty()) return nullptr;
  std::shared_ptr<Pass> out = std::move(waiting_[stage].front());
  waiting_[stage].pop_front();
  return out;
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

std::size_t Pipeline::admit(std::span<const std::shared_ptr<Pass>> passes) {
  std::unique_lock lock(mutex_);
  pass_ends_.wait(lock, [this] { return in_flight_ < limit_; });
  const std::size_t count = std::min(passes.size(), limit_ - in_flight_);
  for (const auto& pass : passes.first(count)) pass->place.emplace(*this);
  return count;
}

std::vector<std::future<at::Tensor>> Pipeline::submit(const std::shared_ptr<Run>& run,
                                                      std::span<const Evaluation> evaluations, double timestep) {
  stop_if_requested();
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
  for (std::size_t next = 0; next < passes.size();) {
    const std::size_t count = admit(std::span(passes).subspan(next));
    enter(0, std::span(passes).subspan(next, count));
    for (const std::size_t end = next + count; next < end; ++next) passes[next].reset();
  }
  return results;
}

void Pipeline::enter(std::size_t stage, std::span<const std::shared_ptr<Pass>> passes) noexcept {
  const std::size_t member = stages_[stage].member;
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
  for (std::size_t i = 0; i < passes.size() && !error; ++i) error = wake(member);
  if (!error) return;
  for (const auto& pass : passes) {
    std::size_t found = 0;
    {
      const std::lock_guard lock(mutex_);
      found = std::erase(waiting_[stage], pass);
    }
    if (found > 0) fail(*pass, error);  // the others were taken, and may have gone further
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
  if (!waiting.empty()) fault_point("take");
  const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(std::min(share, waiting.size()));
  Turn out{*stage, {waiting.begin(), end}};
  waiting.erase(waiting.begin(), end);
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

void Pipeline::work(std::size_t member) noexcept {
  // Goes on by itself where there is no memory for a task that would.
  while (do_next(member) && wake(member)) {
  }
}

bool Pipeline::do_next(std::size_t member) noexcept {
  if (std::optional<Between> between = take_between(member, Turns::InOrder)) {
    do_between(std::move(*between));
    return true;  // what called may have been meant for a pass
  }
  Turn turn;
  try {
    turn = take(member);
  } catch (...) {
    drop_waiting(member, std::current_exception());
  }
  if (turn.passes.empty()) return false;
  const Member& own = members_[member];
  std::shared_ptr<CopyWaits> waits = go_through(turn);
  if (own.follower) {
    if (follow_turn(turn.stage, turn.passes.size(), std::move(waits))) return false;
    turn_ends(turn.stage, turn.passes.size(), 0.0);
    return true;
  }
  if (own.stream) {  // a CPU copies blocks itself
    const std::lock_guard lock(mutex_);
    learn(turn.stage, turn.passes.size(), 1.0);
  }
  return false;
}

std::future<void> Pipeline::between_passes(const DeviceId& device, std::function<void()> work) {
  const auto own = std::ranges::find(members_, device, &Member::device);
  MGPU_CHECK(own != members_.end(), "{} is no member", device.to_string());
  const auto member = static_cast<std::size_t>(own - members_.begin());
  Between between;
  between.work = std::move(work);
  std::future<void> out = between.done.get_future();
  std::uint64_t came = 0;
  {
    const std::lock_guard lock(mutex_);
    came = between.came = ++comings_;
    between_[member].push_back(std::move(between));
  }
  if (const std::exception_ptr error = wake(member)) {
    const std::lock_guard lock(mutex_);
    // Unless another task has taken it.
    if (std::erase_if(between_[member], [came](const Between& one) { return one.came == came; }) > 0)
      std::rethrow_exception(error);
  }
  return out;
}

std::optional<Pipeline::Between> Pipeline::take_between(std::size_t member, Turns turns) noexcept {
  const std::lock_guard lock(mutex_);
  std::deque<Between>& between = between_[member];
  if (between.empty()) return std::nullopt;
  const std::optional<std::size_t> stage = turns == Turns::InOrder ? next_stage(member) : std::nullopt;
  if (stage && waiting_[*stage].front()->came < between.front().came) return std::nullopt;
  std::optional<Between> out = std::move(between.front());
  between.pop_front();
  return out;
}

void Pipeline::do_between(Between between) noexcept {
  std::exception_ptr error;
  try {
    between.work();
  } catch (...) {
    error = std::current_exception();
  }
  between.work = nullptr;  // what it holds is the waiter's
  if (error) {
    between.done.set_exception(error);
  } else {
    between.done.set_value();
  }
}

std::shared_ptr<CopyWaits> Pipeline::waits_of(const Member& member) {
  if (!member.follower || !member.stream) return nullptr;
  fault_point("copy waits");
  return std::make_shared<CopyWaits>(torch_device(member.device));
}

std::shared_ptr<CopyWaits> Pipeline::go_through(const Turn& turn) noexcept {
  const Stage& stage = stages_[turn.stage];
  const Member& member = members_[stage.member];
  std::shared_ptr<CopyWaits> waits;
  try {
    on_device(member.device, [&] {
      stop_if_requested();
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

bool Pipeline::follow_turn(std::size_t stage, std::size_t passes, std::shared_ptr<const CopyWaits> waits) noexcept {
  const Member& member = members_[stages_[stage].member];
  try {
    post(*member.follower, [this, stage, passes, end = mark_of(member.device), waits = std::move(waits)] {
      double waited = 0.0;
      try {
        end.wait();
        if (waits) waited = waits->share();
      } catch (...) {  // whoever follows its passes says so
      }
      turn_ends(stage, passes, waited);
      if (const std::exception_ptr error = wake(stages_[stage].member)) drop_waiting(stages_[stage].member, error);
    });
    return true;
  } catch (...) {
    return false;
  }
}

void Pipeline::turn_ends(std::size_t stage, std::size_t passes, double waited) noexcept {
  const std::lock_guard lock(mutex_);
  --turns_[stages_[stage].member];
  learn(stage, passes, waited);
}

void Pipeline::run_blocks(const Stage& stage, const Passes& passes, CopyWaits* waits) {
  const Member& member = members_[stage.member];
  for (int block = stage.first; block <= stage.last; ++block) {
    const BlockStream::Use use(member.stream.get(), block, waits);
    for (const auto& pass : passes) {
      stop_point(torch_device(member.device));
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
  follow(from, to, way, pass, [this, index, pass] { enter(index + 1, {&pass, 1}); });
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
  post(*from.follower, [&from, &to, way = std::move(way), pass = std::move(pass), then = std::move(then)] {
    try {
      fault_point("follow");
      on_device(from.device, [&] { way->wait_for_source(); });
      on_device(to.device, [&] { way->wait(); });
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
