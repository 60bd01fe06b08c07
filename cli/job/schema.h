#pragma once

#include "cli/job/fields.h"

namespace mgpu {

/// States every key of a job file: their names, types, ranges, docs, and, by the structs' initial values, their
/// defaults.
void state_job(Section& section, Job& job);

}  // namespace mgpu
