#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "core/models/held_blocks.h"
#include "shard/plan.h"

namespace mgpu {

/// Blocks of a component that follow each other on one of the plan's devices.
struct PlannedRun {
  std::size_t device = 0;
  HeldBlocks held;
};

/// The runs in which the plan has a component's `count` blocks, in the blocks' order: an encoder's, which are all of
/// one kind. Neighbouring assignments of one device are one run.
std::vector<PlannedRun> planned_runs(const Plan& plan, std::string_view component, int count);

}  // namespace mgpu
