#pragma once

#include "cli/job/job.h"

namespace mgpu {

/// Holds a job's values to each other, as far as that takes no other file: devices, tiles, seeds, conditions, masks,
/// output names. Tiles that the job names without an overlap get one that suits them. Throws Error (exit 2) at the key.
void check_values(Job& job);

/// Throws Error at an allocation that makes a device compute which is not among those that the job names.
void check_computing(const Job& job);

/// Of a device that the autoencoder is to be spread over, and that does not compute.
Error coder_error(const Job& job, const DeviceId& id);

}  // namespace mgpu
