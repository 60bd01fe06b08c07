#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>

#include "shard/plan.h"

namespace mgpu {

/// What a device held and did, measured: the report's numbers. Phases may come again, for the next picture; peaks are
/// the highest of all.
class Meter {
 public:
  explicit Meter(at::Device device);

  /// Runs `work` as part of `phase`: its device time is busy time, its highest memory the phase's peak. Returns the
  /// seconds it took, the device's queue drained.
  template <typename Work>
  double measure(Phase phase, Work&& work) {
    const Scope scope(*this, phase);
    work();
    return scope.finish();
  }

  /// Notes the memory in use once the diffusion model is loaded.
  void loaded();

  /// A pass of the diffusion model ended, in which this device ran so many blocks. One that failed on its way is none.
  void pass_done(int blocks) { blocks_ += static_cast<std::uint64_t>(blocks), ++passes_; }

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
  class Scope {
   public:
    Scope(Meter& meter, Phase phase);
    ~Scope();
    double finish() const;

   private:
    Meter& meter_;
    Phase phase_;
    std::chrono::steady_clock::time_point start_;
  };

  at::Device device_;
  std::uint64_t before_ = 0, after_load_ = 0, blocks_ = 0, passes_ = 0;
  PhaseBytes peaks_{};
  double busy_ = 0.0;
};

}  // namespace mgpu
