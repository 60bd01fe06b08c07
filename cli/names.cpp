#include "cli/names.h"

#include <fmt/format.h>

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
  const std::optional<SamplerChoice> choice = choose_sampler(name);
  return choice && !choice->schedule && !choice->philox ? choice->sampler->name : std::string_view{};
}

std::string spelled_out_sampler(std::string_view name) {
  const std::optional<SamplerChoice> choice = choose_sampler(name);
  if (!choice) return {};
  std::string text = fmt::format("write name: {}", choice->sampler->name);
  if (choice->schedule) text += fmt::format(", scheduler: {}", choice->schedule->name);
  if (choice->philox) text += ", step_noise: philox";
  return text;
}

std::string_view canonical_schedule(std::string_view name) {
  const ScheduleRow* row = find_schedule(name);
  return row ? row->name : std::string_view{};
}

}  // namespace mgpu
