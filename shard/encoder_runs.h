#pragma once

#include <cstddef>
#include <map>
#include <string_view>
#include <vector>

#include "core/models/held_blocks.h"
#include "shard/plan.h"

namespace mgpu {

/// Layers of a text encoder that follow each other on one of the plan's devices.
struct EncoderRun {
  std::size_t device = 0;
  HeldBlocks held;
  std::map<int, DeviceId> donors = {};  ///< of the streamed ones
};

/// The runs in which the plan has an encoder's `count` layers, in their order. Neighbouring assignments of one device
/// are one run.
std::vector<EncoderRun> encoder_runs(const Plan& plan, std::string_view component, int count);

}  // namespace mgpu
