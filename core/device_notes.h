#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/device_id.h"

namespace mgpu {

/// What a user should know of a device that works otherwise than planned, though it works: page-locked memory that was
/// refused, a way between GPUs that is not used. Kept for the report until the process ends; each is said once. From
/// any thread.
void add_device_note(const DeviceId& device, const std::string& text);

/// The notes of a device so far.
std::vector<std::string> device_notes(const DeviceId& device);

/// Until it goes, notes are passed on when they are made: "cuda:0: the system locks no more pages ...". One at a time.
class DeviceNoteListener {
 public:
  explicit DeviceNoteListener(std::function<void(const std::string&)> say);
  ~DeviceNoteListener();
  DeviceNoteListener(const DeviceNoteListener&) = delete;
  DeviceNoteListener& operator=(const DeviceNoteListener&) = delete;
};

}  // namespace mgpu
