#pragma once

#include <map>
#include <string>
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
  std::vector<FileIdentity> files;                 ///< weights and tokenizer data
  std::map<std::string, FileIdentity> inversions;  ///< textual inversions, by their names in prompts
  std::map<std::string, FileIdentity> pictures;    ///< init images and masks, by path

  /// The files that an entry's pictures depend on.
  std::vector<FileIdentity> files_of(const ImageJob& image) const;
};

/// Opens and checks a job's files against each other and against the job's sizes; entries that start from an init image
/// and name no size get its size. No device is touched and no weight read. Throws Error (exit 2) at the file, or at the
/// place in the job.
JobModels open_job(Job& job);

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
