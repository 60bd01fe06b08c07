#include "shard/meter.h"

#include <algorithm>

#include "core/memory.h"

namespace mgpu {

Meter::Meter(at::Device device) : device_(device), before_(bytes_in_use(device)) {}

void Meter::loaded() {
  synchronize(device_);
  after_load_ = bytes_in_use(device_);
}

Meter::Scope::Scope(Meter& meter, Phase phase) : meter_(meter), phase_(phase) {
  reset_peak_bytes(meter.device_);
  start_ = std::chrono::steady_clock::now();
}

double Meter::Scope::finish() const {
  synchronize(meter_.device_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

// Also when the work throws: a phase that ran out of memory is the one whose peak is asked for.
Meter::Scope::~Scope() {
  meter_.busy_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  std::uint64_t& peak = meter_.peaks_[phase_];
  peak = std::max(peak, peak_bytes(meter_.device_));
}

}  // namespace mgpu
