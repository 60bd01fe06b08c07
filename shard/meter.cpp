#include "shard/meter.h"

#include <algorithm>

#include "core/memory.h"

namespace mgpu {

Meter::Meter(const DeviceId& device) : device_(device), before_(bytes_in_use(device)) {}

void Meter::loaded() {
  synchronize(torch_device(device_));
  after_load_ = bytes_in_use(device_);
}

Meter::PhaseScope::PhaseScope(Meter& meter, Phase phase) : meter_(meter), phase_(phase) {
  reset_peak_bytes(meter.device_);
}

// Also when the work throws: a phase that ran out of memory is the one whose peak is asked for.
Meter::PhaseScope::~PhaseScope() {
  std::uint64_t& peak = meter_.peaks_[phase_];
  peak = std::max(peak, peak_bytes(meter_.device_));
}

Meter::Busy::Busy(Meter& meter) : meter_(meter), counts_(!meter.is_busy_), start_(std::chrono::steady_clock::now()) {
  meter.is_busy_ = true;
}

Meter::Busy::~Busy() {
  if (!counts_) return;
  meter_.busy_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  meter_.is_busy_ = false;
}

}  // namespace mgpu
