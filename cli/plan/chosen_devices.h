#pragma once

#include <vector>

#include "cli/job/job.h"
#include "cli/plan/machine.h"
#include "core/devices.h"
#include "shard/plan.h"

namespace mgpu {

/// The devices that a job uses.
struct ChosenDevices {
  std::vector<DeviceRoom> rooms;   ///< in the order of gpu_ids
  std::vector<DeviceRoom> donors;  ///< others that may lend memory: `cpu`, and those that the allocation names
  bool all_cuda = false;
  bool all_bf16 = false;               ///< each computes in bf16 by itself
  std::vector<DeviceId> dropped = {};  ///< missing ones, under `missing_devices: drop`
  /// One of each kind whose rate is missing, where kinds differ and nobody has given their speeds. A GPU counts 1 then,
  /// a CPU beside GPUs kCpuSpeed.
  std::vector<DeviceId> unprobed = {};
  /// One GPU of each kind whose driver bytes no run has measured: kAssumedDriverBytes are counted. None of a supposed
  /// machine.
  std::vector<DeviceId> unmeasured = {};
};

/// Of a CPU beside GPUs, as long as it is not probed: the demo's 512x512 picture takes an H200 0.2 s and two cores
/// 4.4 s, in fp32.
inline constexpr double kCpuSpeed = 0.02;

/// The devices that the job names, else every GPU that can be used, else the CPU (of a supposed machine: its CPUs).
/// Their speeds are those that the job gives, else supposed ones, else 1 where all are of one kind, else probed ones.
/// Throws Error (exit 2) at a device that is not there or cannot be used.
ChosenDevices job_devices(const Job& job, const Machine& machine);

/// What the job asks of the plan: its mode, its allocations, and how many evaluations of the diffusion model do not
/// wait for each other. Dropped devices leave its allocations too.
PlacementRequest placement_request(const Job& job, const ChosenDevices& devices);

/// The error at the place in the job that asked for what the plan cannot do.
Error placement_error(const Job& job, const PlacementError& error);

}  // namespace mgpu
