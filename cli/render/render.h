#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/job/checks/checks.h"
#include "cli/job/job.h"
#include "cli/job/picture_list.h"
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

/// Renders the jobs' pictures into their directories. Directories, devices and memory of all jobs are checked
/// before any weight is read: Error (exit 2, 3) then. After that a picture that fails is reported and
/// the next one is rendered; a job that fails, or whose report cannot be written, leaves the later ones; a signal drops
/// the pictures in flight.
RenderResult render(CheckedJobs checked, const RenderOptions& options, Progress& progress);
/// Checks them first.
RenderResult render(std::vector<Job> jobs, const RenderOptions& options, Progress& progress);

}  // namespace mgpu
