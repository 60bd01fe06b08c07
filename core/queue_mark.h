#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <cstdint>
#include <memory>

namespace mgpu {

/// A place in the work that a GPU's stream was given: reached once all before it is done. None, as a CPU's, whose work
/// is done when it returns, is always reached.
class QueueMark {
 public:
  /// Marks that are only waited for cost the GPU less than those that note the time.
  enum class For : std::uint8_t { Waiting, Timing };

  QueueMark() = default;
  /// Behind what the device's current stream has been given until now.
  explicit QueueMark(at::Device device, For purpose = For::Waiting);

  bool is_set() const { return event_ != nullptr; }
  /// Asks without waiting. Throws c10::Error, as wait() does, where what comes before the mark failed.
  bool is_reached() const;
  /// Waits for it, asleep.
  void wait() const;
  /// What a GPU's current stream is given from now on waits for it.
  void precede_current_stream(at::Device device) const;

  /// The time that the GPU took from one mark to another, both for timing and reached.
  static double seconds_between(const QueueMark& begin, const QueueMark& end);

 private:
  struct Event;
  std::shared_ptr<Event> event_;
};

/// Times what one thread gives a device: from when the device comes to it, whatever else is queued before.
class Stopwatch {
 public:
  explicit Stopwatch(at::Device device);
  /// Waits for what has been queued since.
  double seconds() const;

 private:
  at::Device device_;
  QueueMark begin_;
  std::chrono::steady_clock::time_point begun_;  ///< of a CPU
};

}  // namespace mgpu
