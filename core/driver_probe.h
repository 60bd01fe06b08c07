#pragma once

#include <cstdint>

#include "core/device_id.h"

namespace mgpu {

/// What the context and the libraries' modules take of a GPU once the kernels that jobs use are loaded: measured, after
/// products, attention and convolutions of several shapes in every type that jobs compute in, with a tenth and 32 MiB
/// more for what those do not load. Takes a second or two and up to 0.5 GB, which it gives back. 0 where other programs
/// on the GPU leave it unknown.
std::uint64_t probe_driver_bytes(const DeviceId& gpu, bool has_bf16);

/// What is to be counted for a GPU of which so much was measured: with room for what was not loaded then.
std::uint64_t with_driver_margin(std::uint64_t measured);

}  // namespace mgpu
