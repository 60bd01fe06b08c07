#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/job/job.h"
#include "core/model_set.h"

namespace mgpu {

/// The textual inversions that an entry's prompts name (`embedding:name`), each once.
std::vector<std::string> inversions_of(const ImageJob& image);

/// Finds the textual inversions of all prompts, and reads their vectors for each of the set's encoders, so that nothing
/// is amiss with them once pictures are made. Returns what their files are, by the names in the prompts. Throws Error
/// (exit 2) at the entry that names one which is not there, and naming the file of one that the encoders cannot take.
std::map<std::string, FileIdentity> find_inversions(const Job& job, const ModelSet& set);

}  // namespace mgpu
