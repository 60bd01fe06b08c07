#pragma once

#include <string_view>
#include <vector>

namespace mgpu {

/// The registries of samplers/ as the job reader needs them: names alone, so that it compiles without LibTorch.
std::vector<std::string_view> sampler_names();
std::vector<std::string_view> schedule_names();

/// What a sampler's name says, in the registries' spellings: ComfyUI's name, where `*_gpu` means Philox, or A1111's,
/// which may hold a scheduler ("DPM++ 2M Karras").
struct SamplerName {
  std::string_view sampler;    ///< "" when there is none of that name
  std::string_view scheduler;  ///< "" when the name says nothing of it
  bool philox = false;
};
SamplerName parse_sampler_name(std::string_view name);

/// The registry's spelling of a sampler or schedule, or "" when there is none.
std::string_view canonical_sampler(std::string_view name);
std::string_view canonical_schedule(std::string_view name);

}  // namespace mgpu
