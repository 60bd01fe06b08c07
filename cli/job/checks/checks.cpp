#include "cli/job/checks/checks.h"

#include <algorithm>

#include "cli/job/checks/model_checks.h"
#include "cli/job/checks/output_checks.h"
#include "cli/job/checks/picture_checks.h"
#include "cli/job/checks/unsupported.h"
#include "cli/job/checks/value_checks.h"
#include "cli/job/find_files.h"
#include "cli/job/find_inversions.h"
#include "cli/job/picture_metadata.h"
#include "core/arithmetic.h"
#include "core/error.h"
#include "core/models/diffusion_model.h"

namespace mgpu {
namespace {

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

void check_read(Job& job) {
  check_gpu_ids(job);
  check_tiles(job);
  check_seeds(job);
  check_conditions(job);
  check_masks(job);
  check_output_names(job);
}

void check_loaded(Job& job) {
  refuse_unsupported(job);
  resolve_files(job);
}

JobModels open_job(Job& job) {
  check_computing(job);
  ModelSet set = open_model_files(job.files);
  const int multiple = set.training().size_multiple;
  const std::map<std::string, PngShades> shades = check_init_images(job, multiple);
  check_sizes(job, multiple, set.diffusion.row->name);
  check_shift(job, set.training().prediction, set.diffusion.row->name);
  check_encoder(job, set.vae);
  check_ways(job, set.vae);
  check_clip_skip(job, set);
  check_tokenizers(job, set);
  check_schedules(job);
  job.takes_guidance = diffusion_model(set.diffusion).takes_guidance(set.diffusion);
  std::vector<FileIdentity> identified = model_identities(set);
  auto inversions = find_inversions(job, set);
  JobModels out{std::move(set), std::move(identified), std::move(inversions), picture_identities(job), shades};
  std::vector<FileIdentity> all = out.files;
  for (const auto* named : {&out.inversions, &out.pictures})
    for (const auto& [name, file] : *named) all.push_back(file);
  check_expected_files(job, all);
  return out;
}

CheckedJobs check_jobs(std::vector<Job> jobs, const CheckOptions& options) {
  set_arithmetic_of(jobs);  // before anything is computed, checkpoints told apart by their values included
  CheckedJobs out;
  out.jobs = std::move(jobs);
  for (Job& job : out.jobs) out.models.push_back(open_job(job));
  out.pictures = select(expand(out.jobs), options.only, options.part);
  if (options.previews) check_previews(out.jobs, out.pictures);
  out.reports = report_paths(out.jobs, options.part);
  for (const Job& job : out.jobs) check_output_directory_unchanged(job);
  check_outputs({out.jobs, out.pictures, out.reports, options.previews, options.log});
  return out;
}

}  // namespace mgpu
