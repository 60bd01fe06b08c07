#pragma once

namespace mgpu {

/// Goes back to the working directory that was left before the libraries' constructors ran, because it has been
/// removed: relative paths are those of a folder that is gone, not those of /. Called by set_exact_arithmetic(). Throws
/// Error (exit 2) if that cannot be done.
void return_to_working_directory();

}  // namespace mgpu
