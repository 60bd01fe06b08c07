#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>

#include "core/clock.h"
#include "core/progress.h"
#include "core/queue_mark.h"
#include "shard/plan.h"

namespace mgpu {

/// What a device held and did, measured: the report's numbers. Phases may come again, for the next picture; peaks are
/// the highest of all. For several threads at once.
class Meter {
 public:
  explicit Meter(const DeviceId& device);

  /// While it lives the device's memory belongs to a phase, whose peak it is at its highest: the last in order of those
  /// that have not been left. One decode among the passes of other pictures is a phase of its own, also where another
  /// picture's sampling begins meanwhile.
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

  /// While it lives the calling thread gives the device work; within another of the same meter it counts nothing more.
  /// A GPU's time is that between marks around the work on its current stream, whoever waits for it and when; a CPU's,
  /// or that of a caller who does wait, is the caller's.
  class Busy {
   public:
    enum class Of : std::uint8_t { Device, Caller };
    explicit Busy(Meter& meter, Of time = Of::Device) noexcept;
    ~Busy();
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Meter& meter_;
  };

  /// Notes the memory in use once the diffusion model is loaded.
  void loaded();

  /// What the device is at, apart from its name. From any thread.
  DeviceStatus status() const;

  /// So many bytes were sent to the device: passes from other devices, or blocks from a donor.
  void received(const DeviceId& from, std::uint64_t bytes);

  /// A pass of the diffusion model ended, in which this device ran so many blocks. One that failed on its way is none.
  void pass_done(int blocks);

  /// The numbers of the report.
  struct Measured {
    std::uint64_t before_bytes = 0, after_load_bytes = 0;
    PhaseBytes peaks{};
    double busy_seconds = 0.0;
    std::uint64_t blocks = 0, passes = 0;
    std::map<DeviceId, std::uint64_t> received = {};  ///< bytes, by where they came from

    /// Mean over the passes; 0 where there were none.
    double blocks_per_pass() const {
      return passes == 0 ? 0.0 : static_cast<double>(blocks) / static_cast<double>(passes);
    }
  };
  Measured measured() const;

  std::uint64_t before_bytes() const { return measured().before_bytes; }
  std::uint64_t after_load_bytes() const { return measured().after_load_bytes; }
  PhaseBytes peaks() const { return measured().peaks; }
  double busy_seconds() const { return measured().busy_seconds; }
  std::uint64_t passes() const { return measured().passes; }
  double blocks_per_pass() const { return measured().blocks_per_pass(); }

 private:
  /// The phase that the device is in; the lock held here and below.
  std::optional<Phase> phase() const;
  /// The peak so far is that of the phase the device is in.
  void note_peak();
  /// With the work that is under way; the lock held.
  double busy_now() const;
  /// Work of a GPU, between two marks on its stream.
  struct Span {
    QueueMark begin, end;
  };
  /// Counts the spans that are over, without waiting for the others.
  void count_spans() const noexcept;

  DeviceId device_;
  mutable std::mutex mutex_;  // a pass ends in the worker that runs its last block, and a report may be asked for then
  Measured measured_;
  Phases<int> entered_;  // and not left: scopes of each
  int busy_ = 0;         // scopes
  Clock::time_point busy_since_;
  QueueMark busy_from_;  // of a GPU, instead
  mutable std::deque<Span> spans_;
  mutable double spans_seconds_ = 0.0;                   // of those that were counted
  mutable std::optional<Clock::time_point> span_since_;  // when the first that was not was seen to have begun
};

}  // namespace mgpu
