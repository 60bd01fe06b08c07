#pragma once

namespace mgpu {

/// Registers every family that the program knows: once, before the first weight file is opened.
void register_families();

}  // namespace mgpu
