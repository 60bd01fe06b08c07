#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/fault_point.h"
#include "core/memory.h"
#include "shard/pipeline_pass.h"

// Which passes a member takes next, and when: what waits before its stages, how many share a copy, other work between.

namespace mgpu {
namespace {

// A streamed block costs a multiple of this, and a sampler's step less.
constexpr std::chrono::milliseconds kPatience{3};
// What a GPU does, and what it finds when that is done. With more, what comes meanwhile (a picture to decode, a pass on
// its way up a UNet) would wait behind passes that nobody waits for.
constexpr int kBatchesAhead = 2;
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
  while (std::optional<InterleavedTask> task = take_interleaved(member, Order::Any)) task->done.set_exception(error);
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].lead() != member) continue;
    while (const std::shared_ptr<Pass> pass = take_first(stage)) fail(*pass, error);
  }
}

void Pipeline::look_again(std::size_t member) noexcept {
  if (const std::exception_ptr error = wake(member)) drop_waiting(member, error);
}

std::shared_ptr<Pipeline::Pass> Pipeline::take_first(std::size_t stage) noexcept {
  const std::lock_guard lock(mutex_);
  if (waiting_[stage].empty()) return nullptr;
  std::shared_ptr<Pass> out = std::move(waiting_[stage].front());
  waiting_[stage].pop_front();
  return out;
}

Pipeline::Batch Pipeline::take(std::size_t member) {
  std::unique_lock lock(mutex_);
  const std::optional<std::size_t> stage = next_stage(member);
  if (!stage || has_enough(member, *stage)) return {};
  std::deque<std::shared_ptr<Pass>>& waiting = waiting_[*stage];
  // Passes that went through a stage together come to the next one after another: a moment's patience keeps them so.
  const std::size_t share = share_of(*stage);
  if (waiting.size() < share) pass_comes_.wait_for(lock, kPatience, [&] { return waiting.size() >= share; });
  if (!waiting.empty()) fault_point("take");
  const auto end = waiting.begin() + static_cast<std::ptrdiff_t>(std::min(share, waiting.size()));
  Batch out{*stage, {waiting.begin(), end}};
  waiting.erase(waiting.begin(), end);
  if (members_[member].follower && !out.passes.empty()) ++batches_[member];
  return out;
}

std::optional<std::size_t> Pipeline::next_stage(std::size_t member) const {
  std::optional<std::size_t> out;
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].lead() != member || waiting_[stage].empty()) continue;
    if (!out || waiting_[stage].front()->came < waiting_[*out].front()->came) out = stage;
  }
  return out;
}

/// Few passes do not begin a streaming stage while the device has other work: more come meanwhile.
bool Pipeline::has_enough(std::size_t member, std::size_t stage) const {
  const bool few = waiting_[stage].size() < share_of(stage);
  return batches_[member] >= (few ? 1 : kBatchesAhead);
}

std::size_t Pipeline::share_of(std::size_t stage) const {
  const std::size_t most = limit_ == kNoLimit ? in_flight_ : limit_;
  const std::size_t of_stages = (most + stages_.size() - 1) / stages_.size();
  return std::clamp<std::size_t>(together_[stage], 1, std::max<std::size_t>(of_stages, 1));
}

std::size_t Pipeline::first_share(const Stage& stage) const {
  const BlockStream* stream = members_[stage.lead()].stream.get();
  if (!stream) return 1;
  int blocks = 0;
  for (const Stage& own : stages_) blocks += own.lead() == stage.lead() ? own.last - own.first + 1 : 0;
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
  if (std::optional<InterleavedTask> task = take_interleaved(member, Order::InOrder)) {
    run_interleaved(std::move(*task));
    return true;  // what called may have been meant for a pass
  }
  Batch batch;
  try {
    batch = take(member);
  } catch (...) {
    drop_waiting(member, std::current_exception());
  }
  if (batch.passes.empty()) return false;
  const Member& own = members_[member];
  std::shared_ptr<CopyWaits> waits = go_through(batch);
  if (own.follower) {
    if (follow_batch(batch.stage, batch.passes.size(), std::move(waits))) return false;
    batch_ends(batch.stage, batch.passes.size(), 0.0);
    return true;
  }
  if (own.stream) {  // a CPU copies blocks itself
    const std::lock_guard lock(mutex_);
    learn(batch.stage, batch.passes.size(), 1.0);
  }
  return false;
}

std::future<void> Pipeline::between_passes(const DeviceId& device, std::function<void()> work) {
  const auto own = std::ranges::find(members_, device, &Member::device);
  MGPU_CHECK(own != members_.end(), "{} is no member", device.to_string());
  const auto member = static_cast<std::size_t>(own - members_.begin());
  InterleavedTask task;
  task.work = std::move(work);
  std::future<void> out = task.done.get_future();
  std::uint64_t came = 0;
  {
    const std::lock_guard lock(mutex_);
    came = task.came = ++comings_;
    interleaved_[member].push_back(std::move(task));
  }
  if (const std::exception_ptr error = wake(member)) {
    std::size_t found = 0;
    {
      const std::lock_guard lock(mutex_);
      found = std::erase_if(interleaved_[member], [came](const InterleavedTask& one) { return one.came == came; });
    }
    if (found > 0) std::rethrow_exception(error);
    look_again(member);  // another's task has taken it: whoever that was posted for still waits
  }
  return out;
}

std::optional<Pipeline::InterleavedTask> Pipeline::take_interleaved(std::size_t member, Order order) noexcept {
  const std::lock_guard lock(mutex_);
  std::deque<InterleavedTask>& task = interleaved_[member];
  if (task.empty()) return std::nullopt;
  const std::optional<std::size_t> stage = order == Order::InOrder ? next_stage(member) : std::nullopt;
  if (stage && waiting_[*stage].front()->came < task.front().came) return std::nullopt;
  std::optional<InterleavedTask> out = std::move(task.front());
  task.pop_front();
  return out;
}

void Pipeline::run_interleaved(InterleavedTask task) noexcept {
  std::exception_ptr error;
  try {
    task.work();
  } catch (...) {
    error = std::current_exception();
  }
  task.work = nullptr;  // what it holds is the waiter's
  if (error) {
    task.done.set_exception(error);
  } else {
    task.done.set_value();
  }
}

bool Pipeline::follow_batch(std::size_t stage, std::size_t passes, std::shared_ptr<const CopyWaits> waits) noexcept {
  const Member& member = members_[stages_[stage].lead()];
  try {
    post(*member.follower, [this, stage, passes, end = mark_of(member.device), waits = std::move(waits)] {
      double waited = 0.0;
      try {
        end.wait();
        if (waits) waited = waits->share();
      } catch (...) {  // whoever follows its passes says so
      }
      batch_ends(stage, passes, waited);
      look_again(stages_[stage].lead());
    });
    return true;
  } catch (...) {
    return false;
  }
}

void Pipeline::batch_ends(std::size_t stage, std::size_t passes, double waited) noexcept {
  const std::lock_guard lock(mutex_);
  --batches_[stages_[stage].lead()];
  learn(stage, passes, waited);
}

}  // namespace mgpu
