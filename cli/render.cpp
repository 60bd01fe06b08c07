#include "cli/render.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <iterator>

#include "cli/job_notes.h"
#include "cli/job_run.h"
#include "cli/output.h"
#include "cli/prepare.h"
#include "cli/probed_devices.h"
#include "cli/signals.h"
#include "core/arithmetic.h"
#include "core/device_notes.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/own_memory.h"

namespace mgpu {
namespace {

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

/// The instructions that LibTorch may use are the process's, not a job's.
void set_arithmetic_of(const std::vector<Job>& jobs) {
  const auto is_portable = [](const Job& job) { return *job.exact == Exact::Portable; };
  if (std::ranges::none_of(jobs, is_portable)) return;
  if (const auto other = std::ranges::find_if_not(jobs, is_portable); other != jobs.end())
    throw Error(Exit::Usage, Mark{other->file},
                "this job is not \"exact: portable\", as others of the call are: one call has one arithmetic",
                "--portable makes all of them so; else render them in two calls");
  set_portable_arithmetic();
}

}  // namespace

RenderResult render(std::vector<Job> jobs, const RenderOptions& options, Progress& progress) {
  set_arithmetic_of(jobs);  // before anything is computed, checkpoints told apart by their values included
  std::vector<JobModels> models;
  for (Job& job : jobs) models.push_back(open_job(job));
  const std::vector<Picture> pictures = select(expand(jobs), options.only, options.part);
  if (options.preview > 0) check_previews(jobs, pictures);
  const std::vector<std::string> report_files = report_paths(jobs, options.part);
  for (std::size_t i = 0; i < jobs.size(); ++i)
    for (const std::string& note : job_notes(jobs[i], models[i])) progress.note("note: " + note);
  load_mkl();
  Machine machine{survey_devices()};
  const DeviceNoteListener listener([&](const std::string& note) { progress.note(note); });
  const SpeedSource speeds{[&](const std::string& note) { progress.note(note); }};
  const std::vector<PreparedJob> prepared = prepare_all(jobs, std::move(models), machine, speeds);

  RenderResult result;  // its code is the gravest of the jobs': Exit's values stand in order of precedence
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    std::vector<Picture> own;
    std::ranges::copy_if(pictures, std::back_inserter(own),
                         [&](const Picture& p) { return p.job == static_cast<int>(i); });
    JobRun run(prepared[i], std::move(own), options, progress);
    if (caught_signal() == 0) result.code = std::max(result.code, run.run());
    learn_driver_bytes(prepared[i], machine, speeds);
    result.reports.push_back(run.report());
    if (!report_files[i].empty()) write_file(report_files[i], to_json(result.reports.back()));
  }
  if (const int signal = caught_signal(); signal != 0)
    result.code = signal == SIGTERM ? Exit::Terminated : Exit::Interrupted;
  return result;
}

}  // namespace mgpu
