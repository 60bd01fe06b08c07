#pragma once

#include "cli/commands.h"

namespace mgpu {

/// Equal, largest difference and PSNR of two pictures, or of the pictures of two folders by name; exit 1 where they
/// differ.
Answer compare(const Arguments& arguments);

}  // namespace mgpu
