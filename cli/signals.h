#pragma once

namespace mgpu {

/// From here on the first SIGINT or SIGTERM is noted, for the render to drop what is in flight; the second ends the
/// program at once with exit code 130 or 143.
void install_signal_handlers();

/// The signal that was noted, or 0.
int caught_signal();

}  // namespace mgpu
