#include "cli/job/checks/value_checks.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

namespace mgpu {
void check_gpu_ids(const Job& job) {
  const std::vector<DeviceId>& ids = *job.placement.gpu_ids;
  for (auto id = ids.begin(); id != ids.end(); ++id)
    if (std::find(ids.begin(), id, *id) != id)
      throw job.error(job.placement.gpu_ids.mark, fmt::format("device \"{}\" is listed twice", id->to_string()));
}

void check_tiles(Job& job) {
  Marked<int>& overlap = job.decode.overlap;
  const int most = *job.decode.tile / 3;
  if (!overlap.given) overlap.value = std::min(*overlap, *job.decode.tile / 4);
  if (*overlap > most)
    throw job.error(overlap.mark, fmt::format("tiles of {} pixels cannot overlap by {}", *job.decode.tile, *overlap),
                    fmt::format("at most a third of the tile: {}", most));
}

void check_seeds(const Job& job) {
  for (const ImageJob& image : job.images) {
    const auto further = static_cast<std::uint64_t>(*image.count - 1);
    if (*image.seed > std::numeric_limits<std::uint64_t>::max() - further)
      throw job.error(image.seed.mark,
                      fmt::format("\"seed\" {} and \"count\" {} pass the largest seed, {}", *image.seed, *image.count,
                                  std::numeric_limits<std::uint64_t>::max()));
  }
}

void check_conditions(const Job& job) {
  for (const ImageJob& image : job.images)
    for (const ConditionOptions& condition : *image.conditions)
      if (condition.start > condition.end)
        throw job.error(image.conditions.mark,
                        fmt::format("a condition that starts at {} and ends at {}", condition.start, condition.end));
}

void check_masks(const Job& job) {
  for (const ImageJob& image : job.images)
    if (image.mask && !image.init_image)
      throw job.error(image.mask.mark, "\"mask\" without \"init_image\"",
                      "a mask says which part of an init_image is drawn anew");
}

Error vae_device_error(const Job& job, const DeviceId& id) {
  return job.error(job.placement.allocation.vae.mark,
                   fmt::format("the vae cannot lie on \"{}\", which is not in gpu_ids", id.to_string()),
                   "add it to gpu_ids, or leave it out here");
}

void check_computing(const Job& job) {
  const auto& ids = job.placement.gpu_ids;
  if (!ids.given) return;
  const auto computes = [&](const DeviceId& id) { return std::ranges::find(*ids, id) != ids->end(); };
  const Allocation& a = job.placement.allocation;
  for (const auto& [name, component] : a.all()) {
    const ComponentAllocation& wanted = **component;
    const std::optional<AllocationTail> tail = wanted.expert ? wanted.expert->value.tail : std::nullopt;
    if (component == &a.vae && wanted.compute.size() > 1) {
      const auto absent = std::ranges::find_if_not(wanted.compute, computes);
      if (absent != wanted.compute.end()) throw vae_device_error(job, *absent);
    }
    const DeviceId* sole = tail ? &tail->compute : wanted.compute.size() == 1 ? &wanted.compute.front() : nullptr;
    if (!sole || computes(*sole)) continue;
    const Mark mark = tail ? job.place_in(*wanted.expert, tail->column) : component->mark;
    std::vector<std::string> names;
    for (const DeviceId& id : *ids) names.push_back(id.to_string());
    throw job.error(mark, fmt::format("{} does not compute in this job", sole->to_string()),
                    fmt::format("its devices are {}: \"gpu_ids\" names them", fmt::join(names, ", ")));
  }
}

}  // namespace mgpu
