#pragma once

#include <string_view>

#include "cli/job/job.h"
#include "core/training.h"

namespace mgpu {

/// Throws Error at the width or height that is not a multiple of `multiple` (16 for Flux, 8 for UNets), with the
/// nearest that is.
void check_sizes(const Job& job, int multiple, std::string_view family);

/// Throws Error at the `shift` of an image whose model is no flow model: only a flow's schedule has one.
void check_shift(const Job& job, Prediction prediction, std::string_view family);

/// Throws Error at the `denoise` of an image whose schedule would have more than a million steps, of which its own are
/// the end.
void check_schedules(const Job& job);

}  // namespace mgpu
