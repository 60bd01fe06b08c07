#pragma once

#include <optional>
#include <vector>

#include "cli/job.h"
#include "cli/pictures.h"
#include "cli/report.h"
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
  std::vector<Report> reports;  ///< one a job, in order; also written where the jobs say
};

/// Renders the jobs' pictures into their directories; `jobs` are copied, since init images give sizes (open_job). All
/// jobs are checked before any weight is read: Error (exit 2, 3) then. After that a picture that fails is reported and
/// the next one is rendered; a signal drops the pictures in flight.
RenderResult render(std::vector<Job> jobs, const RenderOptions& options, Progress& progress);

}  // namespace mgpu
