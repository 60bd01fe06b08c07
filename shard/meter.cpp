#include "shard/meter.h"

#include <algorithm>
#include <utility>

#include "core/memory.h"

namespace mgpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

Meter::Meter(at::Device device) : device_(device), before_(bytes_in_use(device)) {}

void Meter::loaded() {
  synchronize(device_);
  after_load_ = bytes_in_use(device_);
}

double Meter::busy_seconds() const {
  const std::lock_guard lock(status_mutex_);
  return busy_ + (is_busy_ ? seconds(Clock::now() - busy_since_) : 0.0);
}

DeviceStatus Meter::status() const {
  DeviceStatus out;
  out.busy_seconds = busy_seconds();
  out.clock_seconds = seconds(Clock::now().time_since_epoch());
  out.bytes_in_use = bytes_in_use(device_);
  const std::lock_guard lock(status_mutex_);
  if (phase_) out.doing = name_of(*phase_);
  return out;
}

Meter::PhaseScope::PhaseScope(Meter& meter, Phase phase) : meter_(meter), phase_(phase) {
  reset_peak_bytes(meter.device_);
  const std::lock_guard lock(meter.status_mutex_);
  meter.phase_ = phase;
}

// Also when the work throws: a phase that ran out of memory is the one whose peak is asked for.
Meter::PhaseScope::~PhaseScope() {
  std::uint64_t& peak = meter_.peaks_[phase_];
  peak = std::max(peak, peak_bytes(meter_.device_));
  const std::lock_guard lock(meter_.status_mutex_);
  meter_.phase_.reset();
}

Meter::Busy::Busy(Meter& meter) : meter_(meter) {
  const std::lock_guard lock(meter.status_mutex_);
  counts_ = !std::exchange(meter.is_busy_, true);
  if (counts_) meter.busy_since_ = Clock::now();
}

Meter::Busy::~Busy() {
  if (!counts_) return;
  const std::lock_guard lock(meter_.status_mutex_);
  meter_.busy_ += seconds(Clock::now() - meter_.busy_since_);
  meter_.is_busy_ = false;
}

}  // namespace mgpu
