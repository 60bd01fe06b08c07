#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cli/job/job.h"

namespace mgpu {

/// The darkest and the brightest value of a PNG's red channel, of 255.
struct PngShades {
  std::uint8_t darkest = 255;
  std::uint8_t brightest = 0;
};

/// Holds a job's PNGs to each other and to its sizes, before anything is loaded. Where an entry has an init image and
/// no width or height, these become the image's, rounded down to `multiple`. Throws Error (exit 2) at the file that is
/// no readable PNG, at an init image that has not the size which the entry asks for, and at a mask that has not its
/// init image's. Masks of conditions may have any size. Returns the shades of what it read, by path.
std::map<std::string, PngShades> check_init_images(Job& job, int multiple);

}  // namespace mgpu
