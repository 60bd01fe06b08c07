#include "cli/render/render_loop.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "cli/job/schedules.h"
#include "cli/render/sampling.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "core/host_limits.h"
#include "core/host_memory.h"
#include "core/memory.h"

namespace mgpu {
namespace {

/// Passes that a picture's run has on their way at once: every picture of its batch, told every text.
std::size_t passes_of(const Picture& picture) {
  const std::size_t texts = 1 + picture.image->conditions->size() + (evaluates_negative(picture.sampler()) ? 1 : 0);
  return static_cast<std::size_t>(picture.batch) * texts;
}

}  // namespace

std::exception_ptr cause_of(const std::exception_ptr& thrown, const ModelSet& models) {
  try {
    models.check_files();
  } catch (const FileChanged&) {
    return std::current_exception();
  }
  return thrown;
}

void RenderLoop::stop_if_ended() const {
  stop_if_requested();
  if (with_.pictures.has_ended()) throw Interrupted{};
}

std::optional<Failure> RenderLoop::render() {
  runs_ = with_.pictures.runs();
  std::vector<std::size_t> passes;
  for (const Group& run : runs_) passes.push_back(passes_of(run.front()->picture));
  const std::size_t enough = with_.engine.passes_at_once();
  queue_.emplace(std::move(passes), enough);
  // The last pictures of a job are sampled side by side and come all at once.
  const std::size_t writers = std::min<std::size_t>(enough, static_cast<std::size_t>(host_threads()));
  writer_.emplace(with_.job, with_.pictures, with_.progress, writers, is_stop_requested);
  {
    // As many again as sample: theirs are the runs that have been sampled and are not decoded yet.
    const std::size_t threads = enough == 1 ? 1 : std::min(2 * enough, runs_.size());
    const auto where = enough == 1 ? Worker::Runs::InCaller : Worker::Runs::InThread;
    std::vector<std::unique_ptr<Worker>> samplers;  // wait for their runs when they go
    for (std::size_t i = 0; i < threads; ++i) {
      try {
        samplers.push_back(std::make_unique<Worker>(with_.engine.latent_device(), where));
        samplers.back()->post([this] { serve(); });
      } catch (...) {
        if (i == 0) throw;
        break;  // those that there are render everything
      }
    }
  }
  writer_.reset();  // once everything is written
  if (end_) std::rethrow_exception(end_);
  if (with_.pictures.has_ended()) throw Interrupted{};
  return shortage_;
}

void RenderLoop::serve() noexcept {
  try {
    // Between passes a sampler waits for its own numbers alone, not for the passes of others.
    std::optional<SideStream> aside;
    if (!with_.engine.goes_one_by_one()) aside.emplace(torch_device(with_.engine.latent_device()));
    while (auto slot = queue_->next()) render_run(std::move(slot));
  } catch (...) {  // not a run's failure, which is settled: nothing more can be rendered here
    end(std::current_exception());
  }
}

void RenderLoop::end(const std::exception_ptr& thrown) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!end_) end_ = thrown;
  }
  queue_->stop();
}

void RenderLoop::render_run(std::unique_ptr<RunQueue::Slot> slot) {
  const Group& group = runs_[slot->run()];
  at::Tensor latents;
  try {
    fault_point("sample");
    latents = sample_run(group);
  } catch (...) {
    settle(group, std::current_exception());
    return;
  }
  slot.reset();  // the devices are the next run's
  for (Entry* entry : group) {
    try {
      finish(*entry, latents.narrow(0, entry->picture.in_batch, 1));
    } catch (...) {
      settle({entry}, std::current_exception());
    }
  }
}

at::Tensor RenderLoop::sample_run(const Group& group) {
  const Picture& picture = group.front()->picture;
  stop_if_ended();
  with_.progress.phase(picture.path, "sample");
  at::Tensor latents;
  const double seconds = with_.engine.measure(Phase::Sample, [&] {
    latents = sample(with_.engine, with_.inputs.run_of(picture), [&](int step, int steps, const at::Tensor& denoised) {
      stop_if_ended();
      with_.engine.models().check_files();
      with_.progress.step(picture.path, step, steps);
      previews_.at_step(group, step, steps, denoised);
    });
  });
  for (Entry* entry : group) entry->report.seconds.sample = seconds / static_cast<double>(group.size());
  return latents;
}

void RenderLoop::finish(Entry& entry, const at::Tensor& latent) {
  std::shared_ptr<WriterThreads::Room> room = writer_->reserve();
  stop_if_ended();
  with_.progress.phase(entry.picture.path, "decode");
  at::Tensor image;
  entry.report.seconds.decode =
      with_.engine.at_autoencoder(Phase::Decode, [&] { image = with_.vae_runner.decode(latent); });
  const HostDeviceScope nobody;
  with_.engine.models().check_files();
  writer_->write(std::move(room), entry, to_rgb8(image));
}

void RenderLoop::settle(const Group& group, const std::exception_ptr& thrown) {
  Failure failure;
  try {
    failure = failure_of(cause_of(thrown, with_.engine.models()), with_.engine.plan().devices.front().room.id);
  } catch (const Interrupted&) {
    end(thrown);
    return;
  }
  if (failure.code == Exit::Device) {
    end(thrown);
  } else if (failure.out_of_memory) {
    with_.pictures.set_aside(group);
    const std::lock_guard lock(mutex_);
    shortage_ = std::move(failure);
  } else {
    with_.pictures.fail(group, failure);
  }
}

}  // namespace mgpu
