#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace mgpu {

/// What a device is at, seen from outside while it works.
struct DeviceStatus {
  std::string id;
  std::string doing;           ///< its phase: encode, sample, decode; empty between phases
  double busy_seconds = 0.0;   ///< that it has worked so far
  double clock_seconds = 0.0;  ///< when this was so, by a steady clock
  std::uint64_t bytes_in_use = 0;
};

/// Asks every device, from any thread.
using DeviceWatch = std::function<std::vector<DeviceStatus>()>;

/// What the engine tells while it works, from several threads. The command line draws it; tests pass their own.
class Progress {
 public:
  virtual ~Progress() = default;
  /// A picture's phase begins: "load", "encode", "sample", "decode", "write".
  virtual void phase(const std::string& picture, const std::string& name) = 0;
  /// `step` of `steps` sampling steps done, from 1.
  virtual void step(const std::string& picture, int step, int steps) = 0;
  /// A picture is finished: status "ok", "kept", "failed" or "skipped" and, for a failure, why.
  virtual void finished(const std::string& picture, const std::string& status, double seconds,
                        const std::string& error) = 0;
  /// Anything else a user should know.
  virtual void note(const std::string& text) = 0;
  /// What went wrong beside the pictures: a report or a manifest that cannot be written.
  virtual void failure(const std::string& text) { note(text); }
  /// Until the next such call devices may be asked what they do, by whoever shows it; an empty watch ends that.
  virtual void watch(DeviceWatch /*devices*/) {}
};

}  // namespace mgpu
