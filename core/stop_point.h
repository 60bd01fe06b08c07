#pragma once

#include <c10/core/Device.h>

namespace mgpu {

/// Between two pieces of work on a device, each of at most about a second. Throws Interrupted once the program was
/// asked to end. Keeps the calling thread no more than some tenths of a second ahead of a GPU: what is queued there is
/// computed to its end, whatever the thread does. Throws c10::Error where the GPU has failed.
void stop_point(at::Device device);

}  // namespace mgpu
