#pragma once

#include <string>

#include "cli/job/job.h"
#include "core/tensor_file.h"

namespace mgpu {

/// A weight file by the hash of its header.
FileIdentity identity_of(const TensorFile& file);

/// Any other file by the hash of all that it holds. Throws Error (exit 2) when it cannot be read.
FileIdentity identity_of(const std::string& path);

}  // namespace mgpu
