#pragma once

#include <string>
#include <vector>

#include "shard/plan.h"

namespace mgpu {

// What a plan says of itself in words.

/// What a donor needs: what it lends, and its driver's bytes beside that.
PhaseBytes peak_of(const PlannedDonor& donor);

/// One sentence for each device that lacks memory, of the phase that it lacks most in; empty where none does.
std::string shortfall_text(const Plan& plan);

/// The means that a plan takes: what is read before runs begin, what is streamed from where, how pictures
/// are coded. Each begins with "; "; empty where it takes none.
std::string means_text(const Plan& plan, const std::vector<ComponentNeed>& components);

}  // namespace mgpu
