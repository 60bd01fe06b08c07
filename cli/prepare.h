#pragma once

#include <vector>

#include "cli/job.h"
#include "cli/picture_job.h"
#include "core/devices.h"
#include "core/model_set.h"
#include "shard/needs.h"
#include "shard/plan.h"

namespace mgpu {

/// A job's models, recognised from headers, and what each of its files is: all that `validate` looks at.
struct JobModels {
  ModelSet set;
  std::vector<FileIdentity> files;
};

/// Opens and checks a job's files against each other and against the job's sizes. No device is touched and no weight
/// read. Throws Error (exit 2) at the file, or at the place in the job.
JobModels open_job(const Job& job);

/// A job that may be rendered: its device has been found and its plan fits.
struct PreparedJob {
  const Job* job = nullptr;
  JobModels models;
  ComputeDtypes dtypes;
  ResolvedTypes types;  ///< the same, as a picture's metadata names them
  Plan plan;
};

/// Chooses the device and plans. Throws Error: exit 2 for a device that is not there, exit 3 when the job does not fit.
PreparedJob prepare(const Job& job, JobModels models, const DeviceSurvey& survey);

}  // namespace mgpu
