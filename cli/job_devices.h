#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cli/job.h"
#include "core/devices.h"
#include "shard/plan.h"

namespace mgpu {

/// What a machine has, or is supposed to have.
struct Machine {
  DeviceSurvey survey;
  std::map<DeviceId, double> speed = {};                ///< supposed ones; a job's own win
  std::map<DeviceId, std::uint64_t> virtual_cpus = {};  ///< bytes of supposed cpu:N; others share main memory
};

/// The machine of `plan --devices`: "cuda:0=8GB,cuda:1=24GB@0.5,cpu=16GB", sizes in powers of 1024, speed 1 if absent.
/// Its GPUs have bf16. Throws Error (exit 2) naming what it does not understand.
Machine suppose_machine(std::string_view devices);

/// The devices that a job uses.
struct JobDevices {
  std::vector<DeviceRoom> rooms;   ///< in the order of gpu_ids
  std::vector<DeviceRoom> donors;  ///< others that may lend memory: `cpu`, and those that the allocation names
  bool all_cuda = false;
  bool all_bf16 = false;               ///< each computes in bf16 by itself
  std::vector<DeviceId> dropped = {};  ///< missing ones, under `missing_devices: drop`
};

/// The devices that the job names, else every GPU that can be used, else the CPU (of a supposed machine: its CPUs).
/// Throws Error (exit 2) at a device that is not there or cannot be used.
JobDevices job_devices(const Job& job, const Machine& machine);

/// What the job asks of the plan: its mode, its allocations, and how many evaluations of the diffusion model do not
/// wait for each other. Dropped devices leave its allocations too.
PlacementRequest placement_request(const Job& job, const JobDevices& devices);

/// The error at the place in the job that asked for what the plan cannot do.
Error placement_error(const Job& job, const PlacementError& error);

}  // namespace mgpu
