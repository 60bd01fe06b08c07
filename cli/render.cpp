#include "cli/render.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <iterator>

#include "cli/job_run.h"
#include "cli/output.h"
#include "cli/prepare.h"
#include "cli/signals.h"
#include "core/arithmetic.h"
#include "core/error.h"

namespace mgpu {
namespace {

/// Throws Error where a text encoder would lie on several devices: only the diffusion model is run that way yet.
void refuse_cut_encoders(const Job& job, const Plan& plan) {
  if (const auto encoder = cut_encoder(plan))
    throw job.error(job.placement.gpu_ids.mark, fmt::format("{} over several devices is not supported yet", *encoder),
                    "give one of them more memory, or name an 8-bit file of it");
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
