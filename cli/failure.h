#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>

#include "core/devices.h"
#include "core/error.h"
#include "core/memory.h"

namespace mgpu {

/// What stopped a picture, for the report and the exit code.
struct Failure {
  Exit code = Exit::ImageFailed;
  std::string why;
  std::optional<DeviceId> out_of_memory;  ///< the device that was, which less may suit
  /// Whether the next picture will fail by this too. No: it may not; Perhaps: a disk, which may get room again; Surely:
  /// a model file that has changed.
  enum class Repeats : std::uint8_t { No, Perhaps, Surely };
  Repeats repeats = Repeats::No;
};

/// Free bytes of a GPU, as free_gpu_bytes() says them.
using AskFree = std::function<std::optional<std::uint64_t>(const DeviceId&)>;

/// What an exception that rendering threw means, on `device` where it does not say on which: our Errors speak for
/// themselves; a device or the machine out of memory fails the picture (exit 1), and that device is named which ran
/// out, whichever's work it was, LibTorch, cuBLAS, cuDNN or the driver that was refused; any other failure of a GPU is
/// a device lost (exit 4); what is left is our own mistake, and fails the picture. Interrupted is no failure: it is
/// thrown on.
Failure failure_of(const std::exception_ptr& thrown, const DeviceId& device,
                   const AskFree& free_bytes = free_gpu_bytes);

}  // namespace mgpu
