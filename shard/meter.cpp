#include "shard/meter.h"

#include <algorithm>

#include "core/clock.h"
#include "core/memory.h"

namespace mgpu {

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
  return measured_.busy_seconds + (busy_ > 0 ? seconds(Clock::now() - busy_since_) : 0.0);
}

DeviceStatus Meter::status() const {
  DeviceStatus out;
  out.bytes_in_use = bytes_in_use(device_);
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
  if (meter_.phase() != before) reset_peak_bytes(meter_.device_);
}

// Also when the work throws: a phase that ran out of memory is the one whose peak is asked for.
Meter::PhaseScope::~PhaseScope() {
  const std::lock_guard lock(meter_.mutex_);
  const std::optional<Phase> before = meter_.phase();
  meter_.note_peak();
  --meter_.entered_[phase_];
  if (meter_.phase() != before) reset_peak_bytes(meter_.device_);
}

Meter::Busy::Busy(Meter& meter) : meter_(meter) {
  const std::lock_guard lock(meter_.mutex_);
  if (meter_.busy_++ == 0) meter_.busy_since_ = Clock::now();
}

Meter::Busy::~Busy() {
  const std::lock_guard lock(meter_.mutex_);
  if (--meter_.busy_ > 0) return;
  meter_.measured_.busy_seconds += seconds(Clock::now() - meter_.busy_since_);
}

}  // namespace mgpu
