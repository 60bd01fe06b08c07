#include "cli/job/job.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "cli/job/key_hints.h"
#include "cli/job/picture_list.h"
#include "cli/job/schema.h"
#include "cli/job/settings.h"
#include "cli/job/yaml_reader.h"
#include "shard/allocation.h"

namespace mgpu {
namespace {

void check_devices(const Job& job) {
  const std::vector<DeviceId>& ids = *job.placement.gpu_ids;
  for (auto id = ids.begin(); id != ids.end(); ++id)
    if (std::find(ids.begin(), id, *id) != id)
      throw job.error(job.placement.gpu_ids.mark, fmt::format("device \"{}\" is listed twice", id->to_string()));
}

void check_decode(Job& job) {
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

}  // namespace

std::vector<std::string_view> prompts_of(const ImageJob& image) {
  std::vector<std::string_view> prompts = {image.prompt, image.negative};
  for (const ConditionOptions& condition : *image.conditions) prompts.push_back(condition.prompt);
  return prompts;
}

std::vector<const FileReference*> picture_files(const ImageJob& image) {
  std::vector<const FileReference*> files;
  const auto add = [&](const FileReference& file) {
    if (file) files.push_back(&file);
  };
  add(image.init_image);
  add(image.mask);
  for (const ConditionOptions& condition : *image.conditions) add(condition.mask);
  return files;
}

Error Job::error(const Mark& mark, std::string message, std::string hint) const {
  return source ? source->error(mark, std::move(message), std::move(hint))
                : Error(Exit::Usage, mark, std::move(message), std::move(hint));
}

Setting parse_setting(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string_view::npos)
    throw Error(Exit::Usage, Mark{fmt::format("--set {}", text)}, "a setting is path=value",
                "as in --set sampler.steps=20");
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

Job read_job(const std::string& text, const std::string& name, const std::string& directory,
             const std::vector<Setting>& settings) {
  const auto source = std::make_shared<const Source>(name, text);
  YamlNode root = parse_yaml(*source);
  if (root.kind == YamlNode::Kind::Null && root.mark.file.empty()) root.mark = Mark{name, 1, 1};
  check_quotes(root, *source);
  for (const Setting& setting : settings)
    set_value(root, setting.path, setting.value, is_text_key(setting.path) ? SettingKind::Text : SettingKind::Yaml);
  const Value value{root, *source, ""};
  if (root.kind != YamlNode::Kind::Map)
    value.fail("a job is a map of keys", "as in \"checkpoint: flux1-dev.safetensors\"");

  Job job;
  job.source = source;
  job.file = name;
  job.directory = directory;
  job.name = std::filesystem::path(name).stem().string();
  Section section(value);
  state_job(section, job);
  section.finish();
  check_devices(job);
  check_decode(job);
  check_seeds(job);
  check_conditions(job);
  check_masks(job);
  check_output_names(job);
  return job;
}

std::vector<std::pair<std::string, const Marked<ComponentAllocation>*>> Allocation::all() const {
  std::vector<std::pair<std::string, const Marked<ComponentAllocation>*>> out{{"unet", &unet}, {"clip", &clip}};
  for (const auto& [key, component] : encoders) out.emplace_back(key, &component);
  out.emplace_back("vae", &vae);
  return out;
}

Error coder_error(const Job& job, const DeviceId& id) {
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
    const std::optional<AllocationTail> tail =
        wanted.expert->empty() ? std::nullopt : parse_allocation(*wanted.expert).tail;
    if (component == &a.vae && wanted.compute.size() > 1) {
      const auto absent = std::ranges::find_if_not(wanted.compute, computes);
      if (absent != wanted.compute.end()) throw coder_error(job, *absent);
    }
    const DeviceId* sole = tail ? &tail->compute : wanted.compute.size() == 1 ? &wanted.compute.front() : nullptr;
    if (!sole || computes(*sole)) continue;
    const Mark mark =
        tail && job.source ? job.source->inside(wanted.expert.mark, *wanted.expert, tail->column) : component->mark;
    std::vector<std::string> names;
    for (const DeviceId& id : *ids) names.push_back(id.to_string());
    throw job.error(mark, fmt::format("{} does not compute in this job", sole->to_string()),
                    fmt::format("its devices are {}: \"gpu_ids\" names them", fmt::join(names, ", ")));
  }
}

void check_sizes(const Job& job, int multiple, std::string_view family) {
  for (const ImageJob& image : job.images) {
    for (const auto& [key, size] : {std::pair("width", &image.width), std::pair("height", &image.height)}) {
      if (**size % multiple == 0) continue;
      const int nearest = std::max(multiple, (**size + multiple / 2) / multiple * multiple);
      throw job.error(size->mark,
                      fmt::format("\"{}\" {} is not a multiple of {}, as {} needs", key, **size, multiple, family),
                      fmt::format("the nearest is {}", nearest));
    }
  }
}

void check_shift(const Job& job, Prediction prediction, std::string_view family) {
  if (prediction == Prediction::Velocity) return;
  for (const ImageJob& image : job.images)
    if (const Marked<Shift>& shift = image.sampler.shift; shift->kind != Shift::Kind::Auto)
      throw job.error(shift.mark, fmt::format("\"shift\" is for flow models such as Flux, and {} is none", family),
                      "leave \"shift\" out");
}

}  // namespace mgpu
