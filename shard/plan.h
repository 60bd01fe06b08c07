#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/devices.h"

namespace mgpu {

/// The phases of a job, in order: all prompts are encoded before the first sampling, and a component leaves its device
/// with its phase.
enum class Phase : std::uint8_t { Encode, Sample, Decode };
inline constexpr std::array kPhases = {Phase::Encode, Phase::Sample, Phase::Decode};
std::string_view name_of(Phase phase);

/// A number for each phase.
template <class T>
struct Phases {
  T encode{};
  T sample{};
  T decode{};

  T& operator[](Phase phase) { return phase == Phase::Encode ? encode : phase == Phase::Sample ? sample : decode; }
  const T& operator[](Phase phase) const { return const_cast<Phases&>(*this)[phase]; }
};
using PhaseBytes = Phases<std::uint64_t>;

/// Equal blocks of one component, as far as the plan cares.
struct BlockNeed {
  std::string kind;  ///< "double", "single", "layer", ...
  int count = 0;
  std::uint64_t bytes = 0;  ///< of all of them, in the type that they are kept in
};

/// One component of a job: what headers and the compute type tell.
struct ComponentNeed {
  std::string name;  ///< unet, clip_l, t5xxl, vae
  Phase phase = Phase::Sample;
  std::vector<BlockNeed> blocks;
  std::uint64_t bytes = 0;       ///< of all its weights; more than its blocks', since stem and head count too
  std::uint64_t activation = 0;  ///< highest need beside the weights, for the job's largest picture
};

/// A device that may be used: what it has, and what of it this job may take.
struct DeviceRoom {
  DeviceId id;
  std::string name;
  std::string uuid;
  std::uint64_t total_bytes = 0;
  std::uint64_t limit_bytes = 0;   ///< vram_limit, or what is free
  std::uint64_t driver_bytes = 0;  ///< context and libraries, which the limit covers too
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
  std::vector<Assignment> assignments;
  PhaseBytes peak{};  ///< predicted, driver's bytes included
};

/// Who holds and runs what: a pure value, made without touching a device, printed by `plan` and held against what the
/// run measured.
struct Plan {
  std::string mode;
  std::string mode_reason;
  std::vector<PlannedDevice> devices;
  std::string shortfall;  ///< which device lacks how much, in the phase that lacks most; empty when the job fits

  bool fits() const { return shortfall.empty(); }
};

/// Places every component on the one device, each in its phase.
Plan plan_single(const std::vector<ComponentNeed>& components, const DeviceRoom& device);

}  // namespace mgpu
