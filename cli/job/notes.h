#pragma once

#include <string>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/models.h"

namespace mgpu {

/// What the user wrote and nothing uses, one line per kind, in the job's order, then what the model files brought
/// (ModelSet::notes). Each begins with its place: `job.yaml:7:13: "negative" is not used at cfg 1`. Of a picture that
/// is rendered again only what --set gave counts: the rest was written by us.
std::vector<std::string> job_notes(const Job& job, const JobModels& models);

/// The same as lines for stderr: "note: PLACE: ...\n" each.
std::string note_lines(const std::vector<std::string>& notes);

}  // namespace mgpu
