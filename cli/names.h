#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// The registries of samplers/ as the job reader needs them: names alone, so that it compiles without LibTorch.
std::vector<std::string_view> sampler_names();
std::vector<std::string_view> schedule_names();
/// The registry's spelling of a sampler or schedule that may be written as A1111 does, or "" when there is none.
std::string_view canonical_sampler(std::string_view name);
/// What to write for a name of A1111's that says more than the sampler ("DPM++ 2M Karras"), or "".
std::string spelled_out_sampler(std::string_view name);
std::string_view canonical_schedule(std::string_view name);

}  // namespace mgpu
