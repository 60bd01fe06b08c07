#pragma once

#include <string>
#include <vector>

#include "cli/arguments.h"

namespace mgpu {

/// The subcommands. Each returns how it ended and what goes to stdout; what is wrong with the user's files is thrown.
struct Answer {
  Exit exit = Exit::Ok;
  std::string text;
  std::string error = {};  ///< what goes to stderr
};

/// Files and headers of the jobs are there, known and belong together; sizes suit the model; names do not repeat. Asks
/// no device.
Answer validate(const Arguments& arguments);
/// Which device would hold and run what, on this machine or a supposed one; exit 3 where a job does not fit.
Answer plan(const Arguments& arguments);
/// A checkpoint's parts, or the job of a picture of ours, as YAML.
Answer inspect(const Arguments& arguments);
/// What the machine has, how fast its GPUs and main memory copy to each other, and what is in the way.
Answer devices(const Arguments& arguments);
/// The noise levels of the job's first image, one a line, with all their digits.
Answer sigmas(const Arguments& arguments);
std::vector<Job> load_jobs(const Arguments& arguments);

}  // namespace mgpu
