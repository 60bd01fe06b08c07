#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/devices.h"
#include "core/need.h"
#include "shard/allocation.h"

namespace mgpu {

/// A device that may be used: what it has, and what of it this job may take.
struct DeviceRoom {
  DeviceId id;
  std::string name;
  std::string uuid;
  std::uint64_t total_bytes = 0;
  std::uint64_t limit_bytes = 0;   ///< vram_limit, or what is free
  std::uint64_t driver_bytes = 0;  ///< context and libraries, which the limit covers too
  double speed = 1.0;              ///< relative
  std::string limited_by = {};     ///< a limit of the system that limit_bytes is what is left of, by name; empty: none
};

/// Consecutive blocks of one kind that a device runs.
struct Assignment {
  std::string component;
  std::string kind;
  int first = 0;  ///< inclusive, from 0, within the kind
  int last = 0;
  int blocks = 0;
  std::uint64_t bytes = 0;
  bool streamed = false;
  std::string from;  ///< the donor of streamed blocks
};

struct PlannedDevice {
  DeviceRoom room;
  std::vector<Assignment> assignments;  ///< none: the run does not touch the device
  PhaseBytes peak{};                    ///< predicted, driver's bytes included; 0 without assignments
  double time = 0.0;  ///< of a pass of the diffusion model on this device: its blocks' relative time over its speed

  bool in_use() const { return !assignments.empty(); }
};

/// A device that computes nothing and keeps blocks for those that do.
struct PlannedDonor {
  DeviceRoom room;
  PhaseBytes offloaded{};  ///< bytes of the blocks that it keeps in each phase
};

/// Bytes that a device lacks in a phase.
struct Shortfall {
  DeviceId device;
  Phase phase = Phase::Sample;
  std::uint64_t bytes = 0;
};

/// Who holds and runs what: a pure value, made without touching a device, printed by `plan` and held against what the
/// run measured.
struct Plan {
  std::string mode;  ///< single, shard
  std::string mode_reason;
  std::vector<PlannedDevice> devices;  ///< every one that might have been used, in the job's order
  std::vector<PlannedDonor> donors;    ///< those that lend
  bool keeps_precomputed =
      true;  ///< what serves only before the steps stays on the devices, else it is read when needed
  /// How pictures are decoded, on every device with blocks of the autoencoder, and in less memory should that not do.
  DecodeNeed decode = {};
  std::vector<DecodeNeed> thriftier = {};
  /// How init images are encoded, where there are such.
  DecodeNeed image_encoding = {};
  /// Of the job for each of its passes, relative: see job_time().
  double pass_time = 0.0;
  /// Of the diffusion model: what is predicted holds for so many on their way at once.
  std::int64_t passes_at_once = 1;
  std::vector<Shortfall> shortfalls;  ///< a device and phase each; none when the job fits
  std::string shortfall;  ///< which device lacks how much, in the phase that lacks most; empty when the job fits

  bool fits() const { return shortfall.empty(); }
  /// The same without the devices that hold nothing, which a run does not touch.
  Plan of_devices_in_use() const;
  /// The most bytes that any device lacks in any phase: so many more on each of them would fit.
  std::uint64_t lacking_bytes() const;
  /// Bytes of a component's blocks that come from donors, by their names.
  std::map<std::string, std::uint64_t> streamed_bytes(std::string_view component) const;
  /// The assignment that a block of a component is in.
  const Assignment& assignment_of(std::string_view component, std::string_view kind, int block) const;
  /// Indices of the devices that have blocks of a component.
  std::vector<std::size_t> devices_of(std::string_view component) const;
  /// Index of the device that runs that block of a component. A component's stem lies with its first block, its head
  /// with its last (of a UNet: both with down 0 and the last up block, which share a device).
  std::size_t device_of(std::string_view component, std::string_view kind, int block) const;
};

/// What the job says of placement.
struct PlacementRequest {
  enum class Mode : std::uint8_t { Auto, Single, Shard };
  Mode mode = Mode::Auto;
  /// Evaluations of the diffusion model that do not wait for each other: pictures times conditionings. One alone gains
  /// nothing from several devices, since they work in turn.
  std::int64_t evaluations = 1;
  std::int64_t passes_a_run = 1;  ///< of those, pictures times conditionings of one run at most
  std::int64_t texts_a_run = 1;   ///< conditionings of one run at most
  /// Different ones of all runs, at different noise levels: runs that are told the same share what comes of it.
  std::int64_t texts = std::numeric_limits<std::int64_t>::max();
  std::map<std::string, AllocationString> allocation = {};  ///< by component; absent ones are balanced
  std::optional<DecodeMode> decode_mode = {};               ///< absent: as memory allows
  std::vector<DeviceId> vae_devices = {};  ///< devices to code pictures if not one does; empty: those like the fastest
  std::vector<DeviceRoom> donors = {};     ///< devices that may lend memory; of their own accord only `cpu` does
};

/// What a job's placement asks for and cannot have, at a column of a component's allocation string.
class PlacementError : public AllocationError {
 public:
  PlacementError(std::string component, const AllocationError& error)
      : AllocationError(error), component_(std::move(component)) {}
  const std::string& component() const { return component_; }

 private:
  std::string component_;
};

}  // namespace mgpu
