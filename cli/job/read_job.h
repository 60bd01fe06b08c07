#pragma once

#include <string>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/settings.h"

namespace mgpu {

/// Reads a job from YAML text. `name` is what errors call it, `directory` what its paths are relative to. Throws Error
/// (exit 2) with file:line:col and the line for a syntax error, an unknown, repeated or missing key, a wrong type or a
/// value out of range.
Job read_job(const std::string& text, const std::string& name, const std::string& directory,
             const std::vector<Setting>& settings = {});

}  // namespace mgpu
