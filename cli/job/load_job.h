#pragma once

#include <string>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/settings.h"

namespace mgpu {

/// Reads a job file ("-": standard input; a PNG of ours: the job it was made by), finds its files and refuses what is
/// not there or not supported yet.
Job load_job(const std::string& file, const std::vector<Setting>& settings = {});

}  // namespace mgpu
