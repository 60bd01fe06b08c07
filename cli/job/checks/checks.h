#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/models.h"
#include "cli/job/picture_list.h"

namespace mgpu {

// Every check of a job, in the order in which they are made: `validate`, `plan` and `run` make the same. What each
// looks at and says is in the other files of this folder. Whether the devices are there and whether the job fits is the
// plan's to say (cli/plan/).

/// The job's values against each other, as far as that takes no other file. read_job() makes these checks. Tiles that
/// the job names without an overlap get one that suits them. Throws Error (exit 2) at the key.
void check_read(Job& job);

/// Refuses what is not supported yet, then finds the files. load_job() makes these checks. Throws Error (exit 2) at the
/// key.
void check_loaded(Job& job);

/// Opens and checks a job's files against each other and against the job's sizes; entries that start from an init image
/// and name no size get its size. No device is touched and no weight read. Throws Error (exit 2) at the file, or at the
/// place in the job.
JobModels open_job(Job& job);

/// Jobs whose files, headers, sizes and outputs have been checked.
struct CheckedJobs {
  std::vector<Job> jobs;
  std::vector<JobModels> models;     ///< of each job
  std::vector<Picture> pictures;     ///< that the options leave; they point into `jobs`
  std::vector<std::string> reports;  ///< where each job's goes; "" for none
};

/// Which of the jobs' pictures a call renders, and what it writes beside them.
struct CheckOptions {
  std::optional<Only> only = {};
  std::optional<PartOfRun> part = {};
  bool previews = false;
  std::string log = {};  ///< "" for none
};

/// The jobs of a call: open_job() for each, then against each other and against the disk. Reads no weight and changes
/// nothing on the disk. Throws Error (exit 2) at the place in the job.
CheckedJobs check_jobs(std::vector<Job> jobs, const CheckOptions& options = {});

}  // namespace mgpu
