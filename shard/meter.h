#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>

#include "shard/plan.h"

namespace mgpu {

/// What a device held and did, measured: the report's numbers. Phases may come again, for the next picture; peaks are
/// the highest of all.
class Meter {
 public:
  explicit Meter(const DeviceId& device);

  /// While it lives the device's memory belongs to a phase, whose peak it is at its highest.
  class PhaseScope {
   public:
    PhaseScope(Meter& meter, Phase phase);
    ~PhaseScope();
    PhaseScope(const PhaseScope&) = delete;
    PhaseScope& operator=(const PhaseScope&) = delete;

   private:
    Meter& meter_;
    Phase phase_;
  };

  /// While it lives the device works; within another of the same meter it counts nothing more.
  class Busy {
   public:
    explicit Busy(Meter& meter);
    ~Busy();
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Meter& meter_;
    bool counts_;
    std::chrono::steady_clock::time_point start_;
  };

  /// Notes the memory in use once the diffusion model is loaded.
  void loaded();

  /// A pass of the diffusion model ended, in which this device ran so many blocks. One that failed on its way is none.
  void pass_done(int blocks) {
    const std::lock_guard lock(passes_mutex_);
    blocks_ += static_cast<std::uint64_t>(blocks), ++passes_;
  }

  std::uint64_t before_bytes() const { return before_; }
  std::uint64_t after_load_bytes() const { return after_load_; }
  const PhaseBytes& peaks() const { return peaks_; }
  double busy_seconds() const { return busy_; }
  std::uint64_t passes() const { return passes_; }
  /// Mean over the passes; 0 where there were none.
  double blocks_per_pass() const {
    return passes_ == 0 ? 0.0 : static_cast<double>(blocks_) / static_cast<double>(passes_);
  }

 private:
  DeviceId device_;
  std::mutex passes_mutex_;  // a pass ends in the worker that runs its last block
  std::uint64_t before_ = 0, after_load_ = 0, blocks_ = 0, passes_ = 0;
  PhaseBytes peaks_{};
  double busy_ = 0.0;
  bool is_busy_ = false;
};

}  // namespace mgpu
