#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/models.h"
#include "cli/job/picture_metadata.h"
#include "cli/plan/chosen_devices.h"
#include "shard/needs.h"
#include "shard/plan.h"

namespace mgpu {

/// What would fit instead of a job that does not: tried by planning it.
struct NearestFit {
  enum class Kind : std::uint8_t {
    None,         ///< nothing was found
    Narrow,       ///< the same in bf16
    SmallerSize,  ///< pictures of at most this size
    MoreMemory,   ///< so many MiB more on each device that the plan uses
    Device,       ///< a limit of so many MiB on the one device that it uses
  };
  Kind kind = Kind::None;
  std::int64_t width = 0, height = 0;
  std::uint64_t mebibytes = 0;
  std::string limited_by = {};  ///< the limit of the system that a `Device` is short of; empty: another one

  /// "pictures of 512x512 would fit"; empty where nothing was found.
  std::string text() const;
};

/// A job whose devices have been found and that has a plan.
struct PreparedJob {
  const Job* job = nullptr;
  JobModels models;
  ComputeDtypes dtypes;
  ResolvedTypes types;  ///< the same, as a picture's metadata names them
  Plan plan;
  NearestFit nearest_fit;  ///< of a plan that does not fit: what would
  /// What it was made of.
  std::vector<ComponentNeed> needs;
  std::vector<DeviceRoom> rooms;
  PlacementRequest request;
};

/// Chooses types and plans. Throws Error (exit 2) at an allocation that cannot be.
PreparedJob plan_job(const Job& job, JobModels models, const ChosenDevices& devices);

/// The same for a job that is to be rendered. Throws Error (exit 3) when it does not fit.
PreparedJob prepare(const Job& job, JobModels models, const ChosenDevices& devices);

/// A placement of less on a device that ran out of memory within its limit: the plan for a tenth less of it. The device
/// may still use what it may. Nothing where there is none, or where it asks no less of that device.
std::optional<Plan> smaller_plan(const PreparedJob& job, const DeviceId& device);

}  // namespace mgpu
