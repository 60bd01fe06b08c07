#include "shard/meter.h"

#include <algorithm>
#include <utility>

#include "core/memory.h"
#include "core/quietly.h"

namespace mgpu {
namespace {

/// None on a device that has failed, which whoever waits for its work is told of.
QueueMark mark(const DeviceId& device) noexcept {
  try {
    return QueueMark(torch_device(device), QueueMark::For::Timing);
  } catch (...) {
    return {};
  }
}

}  // namespace

Meter::Meter(const DeviceId& device) : device_(device) {
  measured_.before_bytes = bytes_in_use(device);
}

void Meter::loaded() {
  synchronize(torch_device(device_));
  const std::lock_guard lock(mutex_);
  measured_.after_load_bytes = bytes_in_use(device_);
}

void Meter::pass_done(int blocks) {
  const std::lock_guard lock(mutex_);
  measured_.blocks += static_cast<std::uint64_t>(blocks);
  ++measured_.passes;
}

void Meter::received(const DeviceId& from, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  measured_.received[from] += bytes;
}

Meter::Measured Meter::measured() const {
  const std::lock_guard lock(mutex_);
  Measured out = measured_;
  out.busy_seconds = busy_now();
  return out;
}

std::optional<Phase> Meter::phase() const {
  std::optional<Phase> out;
  for (const Phase phase : kPhases)
    if (entered_[phase] > 0) out = phase;
  return out;
}

void Meter::note_peak() {
  const std::optional<Phase> now = phase();
  if (!now) return;
  std::uint64_t& peak = measured_.peaks[*now];
  peak = std::max(peak, peak_bytes(device_));
}

double Meter::busy_now() const {
  count_spans();
  const bool caller_works = busy_ > 0 && !busy_from_.is_set();
  return measured_.busy_seconds + spans_seconds_ + (caller_works ? seconds_since(busy_since_) : 0.0) +
         (span_since_ ? seconds_since(*span_since_) : 0.0);
}

void Meter::count_spans() const noexcept {
  try {
    while (!spans_.empty() && spans_.front().end.is_reached()) {
      spans_seconds_ += QueueMark::seconds_between(spans_.front().begin, spans_.front().end);
      spans_.pop_front();
      span_since_.reset();
    }
    if (!spans_.empty() && !span_since_ && spans_.front().begin.is_reached()) span_since_ = Clock::now();
  } catch (...) {  // the device failed: whoever waits for its work is told of it
    spans_.clear();
    span_since_.reset();
  }
}

DeviceStatus Meter::status() const {
  DeviceStatus out;
  quietly([&] { out.bytes_in_use = bytes_in_use(device_); });  // whoever asks has no part in the device's work
  const std::lock_guard lock(mutex_);
  out.busy_seconds = busy_now();
  out.clock_seconds = seconds(Clock::now().time_since_epoch());
  if (const std::optional<Phase> now = phase()) out.doing = name_of(*now);
  return out;
}

Meter::PhaseScope::PhaseScope(Meter& meter, Phase phase) : meter_(meter), phase_(phase) {
  const std::lock_guard lock(meter_.mutex_);
  const std::optional<Phase> before = meter_.phase();
  meter_.note_peak();
  ++meter_.entered_[phase];
  try {
    if (meter_.phase() != before) reset_peak_bytes(meter_.device_);
  } catch (...) {
    --meter_.entered_[phase];
    throw;
  }
}

// Also when the work throws: a phase that ran out of memory is the one whose peak is asked for.
Meter::PhaseScope::~PhaseScope() {
  const std::lock_guard lock(meter_.mutex_);
  const std::optional<Phase> before = meter_.phase();
  quietly([this] { meter_.note_peak(); });  // of a lost device nothing more is known
  --meter_.entered_[phase_];
  quietly([&] {
    if (meter_.phase() != before) reset_peak_bytes(meter_.device_);
  });
}

Meter::Busy::Busy(Meter& meter, Of time) noexcept : meter_(meter) {
  const std::lock_guard lock(meter_.mutex_);
  if (meter_.busy_++ > 0) return;
  meter_.busy_since_ = Clock::now();
  meter_.busy_from_ = time == Of::Device ? mark(meter_.device_) : QueueMark();
}

Meter::Busy::~Busy() {
  const std::lock_guard lock(meter_.mutex_);
  if (--meter_.busy_ > 0) return;
  const QueueMark begin = std::exchange(meter_.busy_from_, {});
  if (!begin.is_set()) {
    meter_.measured_.busy_seconds += seconds_since(meter_.busy_since_);
    return;
  }
  quietly([&] {
    if (QueueMark end = mark(meter_.device_); end.is_set()) meter_.spans_.push_back({begin, std::move(end)});
  });
  meter_.count_spans();
}

}  // namespace mgpu
