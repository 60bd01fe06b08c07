#pragma once

#include "cli/job/job.h"

namespace mgpu {

// A job's values held to each other, each a check of its own: see checks.cpp for their order. All throw Error (exit 2)
// at the key.

/// A device may be listed once.
void check_gpu_ids(const Job& job);

/// Tiles may overlap by a third. Those that the job names without an overlap get one that suits them.
void check_tiles(Job& job);

/// `seed` and `count` may not pass the largest seed.
void check_seeds(const Job& job);

/// A condition may not end before it starts.
void check_conditions(const Job& job);

/// A mask needs an init image.
void check_masks(const Job& job);

/// Throws Error at an allocation that makes a device compute which is not among those that the job names.
void check_computing(const Job& job);

/// Of a device that the autoencoder is to be spread over, and that does not compute.
Error vae_device_error(const Job& job, const DeviceId& id);

}  // namespace mgpu
