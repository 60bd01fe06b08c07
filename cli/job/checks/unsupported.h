#pragma once

#include "cli/job/job.h"

namespace mgpu {

/// Throws Error at the first key that asks for something this version cannot do yet.
void refuse_unsupported(const Job& job);

}  // namespace mgpu
