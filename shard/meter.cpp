#include "shard/meter.h"

#include <algorithm>

#include "core/memory.h"

namespace mgpu {

Meter::Meter(at::Device device) : device_(device) {
  measured_.before_bytes = bytes_in_use(device);
}

void Meter::loaded() {
  synchronize(device_);
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
  return measured_;
}

void Meter::note_peak() {
  if (phases_.empty()) return;
  std::uint64_t& peak = measured_.peaks[phases_.back()];
  peak = std::max(peak, peak_bytes(device_));
}

Meter::PhaseScope::PhaseScope(Meter& meter, Phase phase) : meter_(meter), phase_(phase) {
  const std::lock_guard lock(meter_.mutex_);
  const bool changes = meter_.phases_.empty() || meter_.phases_.back() != phase;
  if (changes) {
    meter_.note_peak();
    reset_peak_bytes(meter_.device_);
  }
  meter_.phases_.push_back(phase);
}

// Also when the work throws: a phase that ran out of memory is the one whose peak is asked for.
Meter::PhaseScope::~PhaseScope() {
  const std::lock_guard lock(meter_.mutex_);
  meter_.note_peak();
  std::vector<Phase>& phases = meter_.phases_;
  phases.erase(std::find(phases.rbegin(), phases.rend(), phase_).base() - 1);
  if (!phases.empty() && phases.back() != phase_) reset_peak_bytes(meter_.device_);
}

Meter::Busy::Busy(Meter& meter) : meter_(meter) {
  const std::lock_guard lock(meter_.mutex_);
  if (meter_.busy_++ == 0) meter_.busy_since_ = std::chrono::steady_clock::now();
}

Meter::Busy::~Busy() {
  const std::lock_guard lock(meter_.mutex_);
  if (--meter_.busy_ > 0) return;
  const auto time = std::chrono::steady_clock::now() - meter_.busy_since_;
  meter_.measured_.busy_seconds += std::chrono::duration<double>(time).count();
}

}  // namespace mgpu
