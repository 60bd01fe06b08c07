#pragma once

#include <exception>
#include <string>

#include "core/devices.h"
#include "core/error.h"

namespace mgpu {

/// What stopped a picture, for the report and the exit code.
struct Failure {
  Exit code = Exit::ImageFailed;
  std::string why;
};

/// What an exception that rendering on `device` threw means: our Errors speak for themselves; a device or the machine
/// out of memory fails the picture (exit 1), and the error's own device is named where it knows it; any other failure
/// of a GPU is a device lost (exit 4); what is left is our own mistake, and fails the picture.
Failure failure_of(const std::exception_ptr& thrown, const DeviceId& device);

}  // namespace mgpu
