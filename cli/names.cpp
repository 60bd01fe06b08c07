#include "cli/names.h"

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

std::string_view canonical_sampler(std::string_view name) {
  const SamplerRow* row = find_sampler(name);
  return row ? row->name : std::string_view{};
}

std::string_view canonical_schedule(std::string_view name) {
  const ScheduleRow* row = find_schedule(name);
  return row ? row->name : std::string_view{};
}

}  // namespace mgpu
