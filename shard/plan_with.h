#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shard/placement.h"
#include "shard/plan.h"

namespace mgpu {

/// The means of saving memory that a plan uses, and the devices that it is for.
struct MemoryOptions {
  bool keeps_precomputed = true;              ///< as Plan's
  bool streams = false;                       ///< blocks that find no room are lent to `cpu`
  std::int64_t passes = 1;                    ///< of the diffusion model at once
  std::size_t decode_mode = 0;                ///< of coding pictures, in ComponentNeed's order
  std::vector<std::size_t> vae_devices = {};  ///< devices that code pictures together, unless `way` is the first
  Cut cut = Cut::Even;                        ///< of the diffusion model
  std::size_t most_devices = 0;               ///< that it is cut over; 0: any number
  std::optional<std::size_t> alone = {};      ///< the one device that everything lies on
};

/// What a plan is made of.
struct PlanInputs {
  const std::vector<ComponentNeed>& components;
  const std::vector<DeviceRoom>& devices;
  const PlacementRequest& request;
  OffloadCache& offloads;
};

/// The best plan with these means, which may not fit, without its reason: see make_plan(). Throws PlacementError.
Plan plan_with(const MemoryOptions& options, const PlanInputs& inputs);

/// Why a plan is as it is: its mode, the devices that run nothing, the means that it uses. `wanted`: passes at once,
/// were there memory.
std::string reason_of(const Plan& plan, const MemoryOptions& options, const PlanInputs& inputs, std::int64_t wanted);

/// Index of the best device to hold everything alone, and how many bytes it lacks.
struct SingleDevice {
  std::size_t device = 0;
  std::uint64_t lacking = 0;
};
SingleDevice best_single_device(const MemoryOptions& options, const PlanInputs& inputs);

/// The one device that `mode: single` uses: the allocation's, or the best. Throws PlacementError.
std::size_t device_of_single(const MemoryOptions& options, const PlanInputs& inputs);

/// Whether blocks of the diffusion model are streamed.
bool streams(const Plan& plan);

/// Devices that may code pictures together: those that are told, else those of one kind and speed, which give the same
/// bits, several at least, the fastest ones first.
std::vector<std::vector<std::size_t>> vae_device_sets_of(const std::vector<DeviceRoom>& devices,
                                                         const PlacementRequest& request);

}  // namespace mgpu
