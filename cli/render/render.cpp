#include "cli/render/render.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iterator>
#include <set>

#include "cli/files/manifest.h"
#include "cli/files/write_file.h"
#include "cli/job/checks/output_checks.h"
#include "cli/job/notes.h"
#include "cli/plan/device_probes.h"
#include "cli/plan/plan_job.h"
#include "cli/render/job_renderer.h"
#include "cli/signals.h"
#include "core/device_notes.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/own_memory.h"

namespace mgpu {
namespace {

namespace fs = std::filesystem;

/// Outputs, devices and memory of every job, before anything is rendered.
std::vector<PreparedJob> prepare_all(const std::vector<Job>& jobs, std::vector<JobModels> models, Machine& machine,
                                     const SpeedSource& speeds) {
  for (const Job& job : jobs) check_output_directory(job);
  std::vector<PreparedJob> out;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    out.push_back(prepare(job, std::move(models[i]), probed_devices(job, machine, speeds)));
  }
  return out;
}

/// A preview is made before the last step, so that few steps have none.
void note_previews(const std::vector<Job>& jobs, int every, Progress& progress) {
  for (const Job& job : jobs) {
    int most = 0;
    for (const ImageJob& image : job.images) most = std::max(most, *image.sampler.steps);
    if (every >= most)
      progress.note(fmt::format("note: --preview {} makes none of {}: its pictures take at most {} step{}", every,
                                job.file, most, most == 1 ? "" : "s"));
  }
}

/// What the GPUs of a job's devices turned out to take beside its tensors is for the next run to count.
void learn_driver_bytes(const PreparedJob& job, Machine& machine, const SpeedSource& source) {
  for (const PlannedDevice& device : job.plan.devices) {
    if (!device.room.id.is_cuda() || !device.in_use()) continue;
    try {
      const std::uint64_t bytes = driver_bytes(device.room.id);
      if (driver_share(device.room.id.index, 0).is_exact()) learn_driver_bytes(device.room.id, bytes, machine, source);
    } catch (const c10::Error&) {  // the GPU is lost, which the report says
    }
  }
}

Exit exit_of(int signal) {
  return signal == SIGTERM   ? Exit::Terminated
         : signal == SIGHUP  ? Exit::HungUp
         : signal == SIGXCPU ? Exit::CpuTimeUsedUp
                             : Exit::Interrupted;
}

/// Says what was thrown beside the pictures. Returns its code.
Exit tell(const std::exception_ptr& thrown, Progress& progress) {
  const Failure failure = failure_of(thrown, DeviceId::cpu());
  progress.failure(failure.why);
  return failure.code;
}

/// A job that did not come to a report of its own.
Report failed_report(const Job& job) {
  Report report;
  report.status = "failed";
  report.job = job.file;
  report.kernel_table = "untuned";
  return report;
}

/// Files that the job writes by way of temporary ones.
std::set<std::string> written_files(const std::vector<Picture>& pictures, const Job& job, const std::string& report) {
  std::set<std::string> out{(fs::path(job.output.directory.path) / kManifestName).string()};
  if (!report.empty()) out.insert(report);
  for (const Picture& picture : pictures) {
    out.insert(picture.path);
    out.insert(preview_path(picture.path));
  }
  return out;
}

/// Renders one job. Throws nothing that concerns it alone.
Report render_job(const PreparedJob& prepared, std::vector<Picture> pictures, const RenderOptions& options,
                  Progress& progress, Exit& code) {
  try {
    JobRenderer run(prepared, std::move(pictures), options, progress);
    if (caught_signal() == 0) code = std::max(code, run.run());
    return run.report();
  } catch (...) {
    code = std::max(code, tell(std::current_exception(), progress));
    return failed_report(*prepared.job);
  }
}

}  // namespace

RenderResult render(std::vector<Job> jobs, const RenderOptions& options, Progress& progress) {
  return render(check_jobs(std::move(jobs), {options.only, options.part, options.preview > 0}), options, progress);
}

RenderResult render(CheckedJobs checked, const RenderOptions& options, Progress& progress) {
  const std::vector<Job>& jobs = checked.jobs;
  const std::vector<std::string>& report_files = checked.reports;
  for (std::size_t i = 0; i < jobs.size(); ++i)
    for (const std::string& note : job_notes(jobs[i], checked.models[i])) progress.note("note: " + note);
  if (options.preview > 0) note_previews(jobs, options.preview, progress);
  Machine machine{survey_devices()};
  const DeviceNoteListener listener([&](const std::string& note) { progress.note(note); });
  const SpeedSource speeds{[&](const std::string& note) { progress.note(note); }};
  const std::vector<PreparedJob> prepared = prepare_all(jobs, std::move(checked.models), machine, speeds);
  note_signals();  // until here there is nothing to drop and nothing to report

  RenderResult result;  // its code is the gravest of the jobs': Exit's values stand in order of precedence
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    std::vector<Picture> own;
    std::ranges::copy_if(checked.pictures, std::back_inserter(own),
                         [&](const Picture& p) { return p.job == static_cast<int>(i); });
    remove_leftovers(written_files(own, jobs[i], report_files[i]));
    result.reports.push_back(render_job(prepared[i], std::move(own), options, progress, result.code));
    learn_driver_bytes(prepared[i], machine, speeds);
    if (report_files[i].empty()) continue;
    try {
      write_file(report_files[i], to_json(result.reports.back()));
    } catch (...) {
      result.code = std::max(result.code, tell(std::current_exception(), progress));
    }
  }
  if (const int signal = caught_signal(); signal != 0) result.code = exit_of(signal);
  return result;
}

}  // namespace mgpu
