#include "core/device_notes.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

namespace mgpu {
namespace {

struct Notes {
  std::mutex mutex;
  std::map<DeviceId, std::vector<std::string>> of_device;
  std::function<void(const std::string&)> say;

  /// Never destroyed: a device's work may end after the program's own objects.
  static Notes& all() {
    static auto& notes = *new Notes;
    return notes;
  }
};

}  // namespace

void add_device_note(const DeviceId& device, const std::string& text) {
  Notes& notes = Notes::all();
  const std::lock_guard lock(notes.mutex);
  std::vector<std::string>& known = notes.of_device[device];
  if (std::ranges::find(known, text) != known.end()) return;
  known.push_back(text);
  if (notes.say) notes.say(device.to_string() + ": " + text);
}

std::vector<std::string> device_notes(const DeviceId& device) {
  Notes& notes = Notes::all();
  const std::lock_guard lock(notes.mutex);
  const auto own = notes.of_device.find(device);
  return own == notes.of_device.end() ? std::vector<std::string>() : own->second;
}

DeviceNoteListener::DeviceNoteListener(std::function<void(const std::string&)> say) {
  Notes& notes = Notes::all();
  const std::lock_guard lock(notes.mutex);
  notes.say = std::move(say);
}

DeviceNoteListener::~DeviceNoteListener() {
  Notes& notes = Notes::all();
  const std::lock_guard lock(notes.mutex);
  notes.say = nullptr;
}

}  // namespace mgpu
