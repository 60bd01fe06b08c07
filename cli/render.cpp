#include "cli/render.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <mutex>
#include <optional>
#include <span>

#include "cli/encoding.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/picture_job.h"
#include "cli/png.h"
#include "cli/prepare.h"
#include "cli/sampling.h"
#include "cli/signals.h"
#include "core/arithmetic.h"
#include "core/error.h"
#include "core/host_memory.h"
#include "core/sha256.h"
#include "shard/engine.h"
#include "vae/codec.h"

namespace mgpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Thrown between steps once a signal has been caught.
struct Interrupted {};

void stop_if_interrupted() {
  if (caught_signal() != 0) throw Interrupted{};
}

/// A picture on its way: what was asked for, and what has come of it.
struct Entry {
  Picture picture;
  std::string record;  ///< its mgpu_job chunk
  ImageReport report;
};

/// Renders one job's pictures on its engine.
class JobRun {
 public:
  JobRun(const PreparedJob& prepared, std::vector<Picture> pictures, const RenderOptions& options, Progress& progress)
      : job_(*prepared.job), prepared_(prepared), progress_(progress) {
    for (Picture& picture : pictures) {
      std::string record = picture_record(job_, picture, prepared.types, prepared.models.files_of(*picture.image));
      const bool keep = existing_picture(picture.path, record, options.overwrite, options.resume) == Existing::Keep;
      ImageReport report{picture.file, keep ? "kept" : "skipped", picture.seed, {}, {}, {}};
      entries_.push_back({std::move(picture), std::move(record), std::move(report)});
    }
  }

  /// Returns the worst that happened.
  Exit run() {
    const bool needed = std::ranges::any_of(entries_, &JobRun::is_open);
    for (const Entry& entry : entries_) {
      if (!is_open(entry)) progress_.finished(entry.picture.path, "kept", 0.0, {});
    }
    if (!needed) return Exit::Ok;
    try {
      render_all();
    } catch (const Interrupted&) {  // what is open stays skipped
    } catch (...) {
      fail(everything(), failure_of(std::current_exception(), device_id()));
    }
    return code_;
  }

  Report report() const {
    Report out;
    out.mode = prepared_.plan.mode;
    out.mode_reason = prepared_.plan.mode_reason;
    out.job = job_.file;
    out.kernel_table = "untuned";
    for (const Entry& entry : entries_) out.images.push_back(entry.report);
    const bool dropped = std::ranges::any_of(entries_, &JobRun::is_open);
    out.status = status_of(out.images, dropped);
    for (std::size_t i = 0; i < prepared_.plan.devices.size(); ++i) out.devices.push_back(device_report(i));
    return out;
  }

 private:
  using Group = std::vector<Entry*>;  // the pictures of one run: one draw of one seed

  static bool is_open(const Entry& entry) { return entry.report.status == "skipped"; }

  /// Neighbours that come from the same draw are sampled together.
  std::vector<Group> runs() {
    std::vector<Group> out;
    for (Entry& entry : entries_) {
      if (!is_open(entry)) continue;
      const Picture* last = out.empty() ? nullptr : &out.back().front()->picture;
      if (!last || last->item != entry.picture.item || last->seed != entry.picture.seed) out.emplace_back();
      out.back().push_back(&entry);
    }
    return out;
  }

  void render_all() {
    engine_ = std::make_unique<Engine>(prepared_.models.set, prepared_.dtypes, prepared_.plan);
    const std::vector<Group> groups = runs();
    encode(groups);
    stop_if_interrupted();
    progress_.phase(groups.front().front()->picture.path, "load");
    engine_->load_diffusion();
    load_decoder();
    const std::span all(groups);
    for (std::size_t i = 0; i < all.size(); i += engine_->runs_at_once()) {
      stop_if_interrupted();
      render_runs(all.subspan(i, std::min(engine_->runs_at_once(), all.size() - i)));
    }
  }

  void load_decoder() {
    const HostDeviceScope scope(engine_->vae_device());
    decoder_ = std::make_unique<Decoder>(engine_->models().vae.vae(), engine_->vae_weights());
  }

  /// What the runs start from. It is encoded together: each picture bears an equal share of the time.
  void encode(const std::vector<Group>& groups) {
    progress_.phase(groups.front().front()->picture.path, "encode");
    std::vector<const Picture*> pictures;
    for (const Group& group : groups)
      for (const Entry* entry : group) pictures.push_back(&entry->picture);
    const TextualInversions inversions(job_.embedding_folders);
    const double seconds = engine_->measure(
        Phase::Encode, [&] { encodings_ = Encodings(*engine_, inversions, pictures, stop_if_interrupted); });
    for (const Group& group : groups) {
      for (Entry* entry : group) entry->report.seconds.encode = seconds / static_cast<double>(pictures.size());
    }
  }

  /// What has come of a run's sampling.
  struct Sampled {
    at::Tensor latents;  ///< [batch, C, h, w]
    std::exception_ptr error;
  };

  /// Samples runs side by side, then writes their pictures one after another. What fails in a run fails that run alone,
  /// unless the device is lost.
  void render_runs(std::span<const Group> groups) {
    const std::vector<Sampled> sampled = sample_runs(groups);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      try {
        if (sampled[i].error) std::rethrow_exception(sampled[i].error);
        for (Entry* entry : groups[i]) finish(*entry, sampled[i].latents.narrow(0, entry->picture.in_batch, 1));
      } catch (const Interrupted&) {
        throw;
      } catch (...) {
        const Failure failure = failure_of(std::current_exception(), device_id());
        if (failure.code == Exit::Device) throw;
        fail(groups[i], failure);
        engine_->release_cached();
      }
    }
  }

  std::vector<Sampled> sample_runs(std::span<const Group> groups) {
    std::vector<Sampled> out(groups.size());
    std::size_t pictures = 0;
    for (const Group& group : groups) pictures += group.size();
    const double seconds = engine_->measure(Phase::Sample, [&] {
      const auto runs = groups.size() == 1 ? Worker::Runs::InCaller : Worker::Runs::InThread;
      std::vector<std::unique_ptr<Worker>> samplers;  // wait for their runs when they go
      for (std::size_t i = 0; i < groups.size(); ++i) {
        samplers.push_back(std::make_unique<Worker>(engine_->home(), runs));
        samplers.back()->post([&, i] {
          try {
            out[i].latents = sample_run(groups[i].front()->picture);
          } catch (...) {
            out[i].error = std::current_exception();
          }
        });
      }
    });
    for (const Group& group : groups)
      for (Entry* entry : group) entry->report.seconds.sample = seconds / static_cast<double>(pictures);
    return out;
  }

  at::Tensor sample_run(const Picture& picture) {
    const auto report = [&](const auto& what) {
      const std::lock_guard lock(progress_mutex_);
      what();
    };
    report([&] { progress_.phase(picture.path, "sample"); });
    return sample(*engine_, encodings_.run_of(picture), [&](int step, int steps) {
      stop_if_interrupted();
      report([&] { progress_.step(picture.path, step, steps); });
    });
  }

  void finish(Entry& entry, const at::Tensor& latent) {
    const Picture& picture = entry.picture;
    ImageReport& report = entry.report;
    stop_if_interrupted();
    progress_.phase(picture.path, "decode");
    Rgb8 pixels;
    report.seconds.decode = engine_->measure(Phase::Decode, [&] {
      const HostDeviceScope scope(engine_->vae_device());
      const LatentFormat& format = engine_->models().training().latent;
      pixels = to_rgb8(decode(latent, format, *decoder_, engine_->ops())[0].cpu());
    });

    progress_.phase(picture.path, "write");
    const Clock::time_point start = Clock::now();
    const std::string png =
        encode_png(pixels, {{"parameters", a1111_parameters(job_, picture)}, {"mgpu_job", entry.record}});
    write_file(picture.path, png);
    report.seconds.write = seconds_since(start);
    report.sha256 = sha256_hex(png);
    report.status = "ok";
    append_file(manifest_path(), manifest_line(report, job_.file, picture.index));
    const ImageReport::Seconds& s = report.seconds;
    progress_.finished(picture.path, "ok", s.encode + s.sample + s.decode + s.write, {});
  }

  void fail(const Group& group, const Failure& failure) {
    code_ = std::max(code_, failure.code);
    for (Entry* entry : group) {
      if (!is_open(*entry)) continue;
      entry->report.status = "failed";
      entry->report.error = failure.why;
      progress_.finished(entry->picture.path, "failed", 0.0, failure.why);
    }
  }

  Group everything() {
    Group all;
    for (Entry& entry : entries_) all.push_back(&entry);
    return all;
  }

  const DeviceId& device_id() const { return prepared_.plan.devices.front().room.id; }

  std::string manifest_path() const { return job_.output.directory.path + "/manifest.jsonl"; }

  DeviceReport device_report(std::size_t device) const {
    const PlannedDevice& planned = prepared_.plan.devices[device];
    DeviceReport out;
    out.id = planned.room.id.to_string();
    out.name = planned.room.name;
    out.uuid = planned.room.uuid;
    out.total_bytes = planned.room.total_bytes;
    out.limit_bytes = planned.room.limit_bytes;
    out.driver_bytes = planned.room.driver_bytes;
    out.predicted_peak_bytes = planned.peak;
    out.assignments = planned.assignments;
    if (!engine_) return out;
    const Meter& meter = engine_->meter(device);
    out.before_bytes = meter.before_bytes();
    out.after_load_bytes = meter.after_load_bytes();
    out.peak_bytes = meter.peaks();
    out.blocks_executed_per_pass = meter.blocks_per_pass();
    out.passes = static_cast<std::int64_t>(meter.passes());
    out.busy_seconds = meter.busy_seconds();
    out.warnings = count_warnings(out);
    return out;
  }

  const Job& job_;
  const PreparedJob& prepared_;
  Progress& progress_;
  std::vector<Entry> entries_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Decoder> decoder_;
  Encodings encodings_;
  std::mutex progress_mutex_;  // runs that are sampled side by side report from threads of their own
  Exit code_ = Exit::Ok;
};

/// Throws Error where a text encoder would lie on several devices: only the diffusion model is run that way yet.
void refuse_cut_encoders(const Job& job, const Plan& plan) {
  for (const std::string_view encoder : {"clip_l", "clip_g", "t5xxl"}) {
    const auto holds = [&](const PlannedDevice& device) {
      return std::ranges::find(device.assignments, encoder, &Assignment::component) != device.assignments.end();
    };
    if (std::ranges::count_if(plan.devices, holds) > 1)
      throw job.error(job.placement.gpu_ids.mark, fmt::format("{} over several devices is not supported yet", encoder),
                      "give one of them more memory, or name an 8-bit file of it");
  }
}

/// Outputs, devices and memory of every job, before anything is rendered.
std::vector<PreparedJob> prepare_all(const std::vector<Job>& jobs, std::vector<JobModels> models) {
  const Machine machine{survey_devices()};
  for (const Job& job : jobs) check_output_directory(job);
  std::vector<PreparedJob> out;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    Plan& plan = out.emplace_back(prepare(job, std::move(models[i]), job_devices(job, machine))).plan;
    refuse_cut_encoders(job, plan);
    std::erase_if(plan.devices, [](const PlannedDevice& device) { return device.assignments.empty(); });
  }
  return out;
}

}  // namespace

RenderResult render(std::vector<Job> jobs, const RenderOptions& options, Progress& progress) {
  std::vector<JobModels> models;
  for (Job& job : jobs) models.push_back(open_job(job));
  const std::vector<Picture> pictures = select(expand(jobs), options.only, options.part);
  const std::vector<std::string> report_files = report_paths(jobs, options.part);
  const std::vector<PreparedJob> prepared = prepare_all(jobs, std::move(models));
  set_exact_arithmetic();

  RenderResult result;  // its code is the gravest of the jobs': Exit's values stand in order of precedence
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    std::vector<Picture> own;
    std::ranges::copy_if(pictures, std::back_inserter(own),
                         [&](const Picture& p) { return p.job == static_cast<int>(i); });
    JobRun run(prepared[i], std::move(own), options, progress);
    if (caught_signal() == 0) result.code = std::max(result.code, run.run());
    result.reports.push_back(run.report());
    if (!report_files[i].empty()) write_file(report_files[i], to_json(result.reports.back()));
  }
  if (const int signal = caught_signal(); signal != 0)
    result.code = signal == SIGTERM ? Exit::Terminated : Exit::Interrupted;
  return result;
}

}  // namespace mgpu
