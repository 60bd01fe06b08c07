#include "cli/job/sampler_names.h"

#include "samplers/sampler.h"
#include "samplers/schedule.h"

namespace mgpu {
namespace {

template <class Rows>
std::vector<std::string_view> names_of(const Rows& rows) {
  std::vector<std::string_view> names;
  for (const auto& row : rows) names.push_back(row.name);
  return names;
}

}  // namespace

std::vector<std::string_view> sampler_names() {
  return names_of(samplers());
}
std::vector<std::string_view> schedule_names() {
  return names_of(schedules());
}

SamplerName parse_sampler_name(std::string_view name) {
  const std::optional<SamplerChoice> choice = choose_sampler(name);
  if (!choice) return {};
  return {choice->sampler->name, choice->schedule ? choice->schedule->name : std::string_view{}, choice->philox};
}

std::string_view canonical_sampler(std::string_view name) {
  return parse_sampler_name(name).sampler;
}

std::string_view canonical_schedule(std::string_view name) {
  const ScheduleRow* row = find_schedule(name);
  return row ? row->name : std::string_view{};
}

}  // namespace mgpu
