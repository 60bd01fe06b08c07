#pragma once

#include <optional>
#include <vector>

#include "cli/job.h"
#include "cli/pictures.h"
#include "core/progress.h"

namespace mgpu {

/// What the command line adds to the jobs of a run.
struct RenderOptions {
  std::optional<Only> only;
  std::optional<PartOfRun> part;
  bool resume = false;
  bool overwrite = false;
  bool json = false;   ///< the reports on stdout, one JSON document a line
  bool quiet = false;  ///< no tables on stderr
};

/// Renders the jobs' pictures, in order, and writes them, their manifests and reports. All jobs are checked before any
/// weight is read; what fails by then is thrown. Returns how it ended: a failed picture does not stop the others, a
/// signal (cli/signals.h) does.
Exit render(const std::vector<Job>& jobs, const RenderOptions& options, Progress& progress);

}  // namespace mgpu
