#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/picture_list.h"
#include "cli/plan/plan_job.h"
#include "cli/render/report.h"
#include "core/progress.h"

namespace mgpu {

/// What the command line adds to the jobs.
struct RenderOptions {
  std::optional<Only> only;
  std::optional<PartOfRun> part;
  bool resume = false;
  bool overwrite = false;
  int preview = 0;  ///< steps from one preview to the next; 0: none
};

/// How a render ended.
struct RenderResult {
  Exit code = Exit::Ok;
  std::vector<Report> reports;  ///< one per job, in order; also written where the jobs say
};

/// Jobs whose files, headers, sizes and outputs have been checked.
struct CheckedJobs {
  std::vector<Job> jobs;
  std::vector<JobModels> models;     ///< of each job
  std::vector<Picture> pictures;     ///< that the options leave; they point into `jobs`
  std::vector<std::string> reports;  ///< where each job's goes; "" for none
};

/// Reads no weight and changes nothing on the disk. `log`: a file that will be written too, "" for none. Throws Error
/// (exit 2) at the place in the job.
CheckedJobs check_jobs(std::vector<Job> jobs, const RenderOptions& options = {}, const std::string& log = {});

/// Renders the jobs' pictures into their directories. Directories, devices and memory of all jobs are checked
/// before any weight is read: Error (exit 2, 3) then. After that a picture that fails is reported and
/// the next one is rendered; a job that fails, or whose report cannot be written, leaves the later ones; a signal drops
/// the pictures in flight.
RenderResult render(CheckedJobs checked, const RenderOptions& options, Progress& progress);
/// Checks them first.
RenderResult render(std::vector<Job> jobs, const RenderOptions& options, Progress& progress);

}  // namespace mgpu
