#include "cli/render.h"

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
#include "core/error.h"

namespace mgpu {
namespace {

/// Outputs, devices and memory of every job, before anything is rendered.
std::vector<PreparedJob> prepare_all(const std::vector<Job>& jobs, std::vector<JobModels> models, Progress& progress) {
  Machine machine{survey_devices()};
  const SpeedSource speeds{[&](const std::string& note) { progress.note(note); }};
  for (const Job& job : jobs) check_output_directory(job);
  std::vector<PreparedJob> out;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    out.push_back(prepare(job, std::move(models[i]), probed_devices(job, machine, speeds)));
  }
  return out;
}

}  // namespace

RenderResult render(std::vector<Job> jobs, const RenderOptions& options, Progress& progress) {
  std::vector<JobModels> models;
  for (Job& job : jobs) models.push_back(open_job(job));
  const std::vector<Picture> pictures = select(expand(jobs), options.only, options.part);
  if (options.preview > 0) check_previews(jobs, pictures);
  const std::vector<std::string> report_files = report_paths(jobs, options.part);
  for (std::size_t i = 0; i < jobs.size(); ++i)
    for (const std::string& note : job_notes(jobs[i], models[i])) progress.note("note: " + note);
  const std::vector<PreparedJob> prepared = prepare_all(jobs, std::move(models), progress);
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
