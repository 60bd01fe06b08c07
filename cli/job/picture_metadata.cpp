#include "cli/job/picture_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/files/png.h"
#include "cli/job/metadata_check.h"
#include "cli/job/read_job.h"
#include "cli/version.h"
#include "core/text/text_encoder.h"

namespace mgpu {
namespace {

using Json = nlohmann::ordered_json;

std::string base_name(const FileReference& reference) {
  return std::filesystem::path(reference.text).filename().string();
}

/// The base names of the files that are named, in the order of `keys`.
Json named_files(const std::map<std::string, FileReference, std::less<>>& files,
                 const std::vector<std::string_view>& keys) {
  Json result = Json::object();
  for (const std::string_view key : keys)
    if (const auto file = files.find(key); file != files.end() && file->second)
      result[std::string(key)] = base_name(file->second);
  return result;
}

Json sampler_json(const SamplerOptions& o) {
  Json json{{"name", *o.name}, {"scheduler", *o.scheduler}, {"steps", *o.steps},
            {"cfg", *o.cfg},   {"guidance", *o.guidance},   {"denoise", *o.denoise}};
  switch (o.shift->kind) {
    case Shift::Kind::Auto:
      json["shift"] = "auto";
      break;
    case Shift::Kind::Constant:
      json["shift"] = o.shift->value;
      break;
    case Shift::Kind::ByResolution:
      json["shift"] = Json{{"base", o.shift->base}, {"max", o.shift->max}};
      break;
  }
  if (*o.clip_skip != 0) json["clip_skip"] = *o.clip_skip;
  json["step_noise"] = *o.step_noise == StepNoiseKind::Cpu ? "cpu" : "philox";
  return json;
}

Json condition_json(const ConditionOptions& condition) {
  Json json{{"prompt", condition.prompt}};
  if (condition.mask) json["mask"] = base_name(condition.mask);
  json["strength"] = condition.strength;
  json["start"] = condition.start;
  json["end"] = condition.end;
  return json;
}

Json image_json(const Picture& picture) {
  const ImageJob& image = *picture.image;
  Json json{{"prompt", image.prompt},  {"negative", image.negative}, {"width", *image.width},
            {"height", *image.height}, {"seed", picture.seed},       {"batch", picture.batch}};
  for (const ConditionOptions& condition : *image.conditions) json["conditions"].push_back(condition_json(condition));
  if (image.init_image) json["init_image"] = base_name(image.init_image);
  if (image.mask) json["mask"] = base_name(image.mask);
  return json;
}

/// Block YAML; scalars as JSON writes them, which YAML reads the same.
void write_yaml(const Json& json, const std::string& indent, std::string& text) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) {
      text += fmt::format("{}{}:\n", indent, key);
      write_yaml(value, indent + "  ", text);
    } else if (value.is_array()) {
      text += fmt::format("{}{}:\n", indent, key);
      for (const Json& item : value) {
        std::string block;
        write_yaml(item, indent + "    ", block);
        if (block.size() > indent.size() + 2) block[indent.size() + 2] = '-';
        text += block;
      }
    } else {
      text += fmt::format("{}{}: {}\n", indent, key, value.dump());
    }
  }
}

Json parse_record(std::string_view record, const std::string& file) {
  Json json = Json::parse(record, nullptr, false);
  const bool sound = json.is_object() && json.contains("version") && json["version"] == 1 && json.contains("job") &&
                     json["job"].is_object() && json.contains("files") && json["files"].is_array() &&
                     !json["files"].empty();
  if (!sound) fail_file(file, "its mgpu_job record is damaged, or of a later version");
  check_record(json, file);
  return json;
}

std::vector<FileIdentity> files_of(const Json& record, const std::string& file) {
  std::vector<FileIdentity> files;
  try {
    for (const Json& entry : record["files"])
      files.push_back({entry.at("name").get<std::string>(), entry.at("bytes").get<std::uint64_t>(),
                       entry.at("sha256").get<std::string>()});
  } catch (const Json::exception&) {
    fail_file(file, "its mgpu_job record is damaged");
  }
  return files;
}

std::string yaml_of(const Json& record, const std::string& file) {
  std::string text;
  for (const FileIdentity& identity : files_of(record, file))
    text += fmt::format("# made with {}: {} bytes, sha256 {}\n", Json(identity.name).dump(), identity.bytes,
                        identity.sha256);
  if (record.contains("in_batch"))
    text += fmt::format("# picture {} of its batch, from 0\n", record["in_batch"].dump());
  write_yaml(record["job"], "", text);
  return text;
}

/// A value of A1111's last line: quoted as JSON when it holds what separates values there.
std::string quoted(const std::string& value) {
  return value.find_first_of(",:\n") == std::string::npos ? value : Json(value).dump();
}

using Spelling = std::pair<std::string_view, std::string_view>;
constexpr std::array<Spelling, 16> sampler_spellings{{{"euler", "Euler"},
                                                      {"euler_ancestral", "Euler a"},
                                                      {"heun", "Heun"},
                                                      {"dpm_2", "DPM2"},
                                                      {"dpm_2_ancestral", "DPM2 a"},
                                                      {"lms", "LMS"},
                                                      {"dpm_fast", "DPM fast"},
                                                      {"dpm_adaptive", "DPM adaptive"},
                                                      {"dpmpp_2s_ancestral", "DPM++ 2S a"},
                                                      {"dpmpp_sde", "DPM++ SDE"},
                                                      {"dpmpp_2m", "DPM++ 2M"},
                                                      {"dpmpp_2m_sde", "DPM++ 2M SDE"},
                                                      {"dpmpp_3m_sde", "DPM++ 3M SDE"},
                                                      {"ddim", "DDIM"},
                                                      {"uni_pc", "UniPC"},
                                                      {"lcm", "LCM"}}};
constexpr std::array<Spelling, 8> schedule_spellings{{{"simple", "Simple"},
                                                      {"normal", "Normal"},
                                                      {"karras", "Karras"},
                                                      {"exponential", "Exponential"},
                                                      {"sgm_uniform", "SGM Uniform"},
                                                      {"ddim_uniform", "DDIM"},
                                                      {"beta", "Beta"},
                                                      {"kl_optimal", "KL Optimal"}}};

std::string spelled(std::span<const Spelling> spellings, const std::string& name) {
  for (const auto& [ours, theirs] : spellings)
    if (ours == name) return std::string(theirs);
  return name;
}

}  // namespace

std::string picture_record(const Job& job, const Picture& picture, const ResolvedTypes& types,
                           const std::vector<FileIdentity>& files) {
  Json resolved{{"checkpoint", base_name(job.files.checkpoint)}};
  const Json encoders = named_files(job.files.encoders, encoder_keys());
  if (!encoders.empty()) resolved["encoders"] = encoders;
  if (job.files.vae) resolved["vae"] = base_name(job.files.vae);
  const Json tokenizers = named_files(job.files.tokenizers, tokenizer_keys());
  if (!tokenizers.empty()) resolved["tokenizers"] = tokenizers;
  resolved["dtype"] = {{"unet", name_of(types.unet)}, {"clip", name_of(types.clip)}, {"vae", name_of(types.vae)}};
  resolved["exact"] = *job.exact == Exact::Portable ? Json("portable") : Json(true);
  resolved["sampler"] = sampler_json(picture.sampler());
  resolved["images"] = Json::array({image_json(picture)});
  Json record{{"version", 1}, {"job", std::move(resolved)}, {"files", Json::array()}};
  if (picture.batch > 1) record["in_batch"] = picture.in_batch;
  for (const FileIdentity& file : files)
    record["files"].push_back(Json{{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  return record.dump(-1, ' ', true);
}

std::string a1111_parameters(const Job& job, const Picture& picture) {
  const ImageJob& image = *picture.image;
  const SamplerOptions& sampler = picture.sampler();
  std::string text = image.prompt;
  if (!image.negative.empty()) text += "\nNegative prompt: " + image.negative;
  text += fmt::format("\nSteps: {}, Sampler: {}, Schedule type: {}, CFG scale: {}", *sampler.steps,
                      quoted(spelled(sampler_spellings, *sampler.name)),
                      quoted(spelled(schedule_spellings, *sampler.scheduler)), *sampler.cfg);
  if (job.takes_guidance) text += fmt::format(", Distilled CFG Scale: {}", *sampler.guidance);  // as Forge writes it
  text += fmt::format(", Seed: {}, Size: {}x{}", picture.seed, picture.width(), picture.height());
  text += fmt::format(", Model: {}", quoted(std::filesystem::path(job.files.checkpoint.text).stem().string()));
  if (*sampler.denoise < 1.0) text += fmt::format(", Denoising strength: {}", *sampler.denoise);
  if (*sampler.clip_skip != 0) text += fmt::format(", Clip skip: {}", *sampler.clip_skip);
  if (picture.batch > 1) text += fmt::format(", Batch size: {}, Batch pos: {}", picture.batch, picture.in_batch);
  text += fmt::format(", RNG: CPU, Version: {} {}", program_name, program_version);
  return text;
}

std::string record_to_yaml(std::string_view record, const std::string& file) {
  return yaml_of(parse_record(record, file), file);
}

Job read_picture_job(std::string_view png, const std::string& file, const std::vector<Setting>& settings) {
  const std::map<std::string, std::string> text = read_png_text(png, file);
  const auto record = text.find("mgpu_job");
  if (record == text.end())
    fail_file(file, "is a picture without an mgpu_job record",
              "only pictures that mgpu-render made can be rendered again");
  const Json json = parse_record(record->second, file);
  Job job = read_job(yaml_of(json, file), file, std::filesystem::path(file).parent_path().string(), settings);
  job.expected_files = files_of(json, file);
  if (json.contains("in_batch")) {
    const auto place = json["in_batch"].get<std::uint64_t>();
    const auto batch = static_cast<std::uint64_t>(*job.images.front().batch);
    if (place >= batch)
      fail_file(file, fmt::format("is picture {} of its batch, from 0, and the batch has {}", place, batch));
    job.only_in_batch = static_cast<int>(place);
  }
  job.output.directory.from_option = true;  // relative to the working directory, not to the picture
  return job;
}

void check_expected_files(const Job& job, const std::vector<FileIdentity>& files) {
  for (const FileIdentity& expected : job.expected_files) {
    if (std::ranges::find(files, expected) != files.end()) continue;  // another file may bear its name
    const auto found =
        std::find_if(files.begin(), files.end(), [&](const FileIdentity& f) { return f.name == expected.name; });
    if (found == files.end())
      fail_file(job.file, fmt::format("was made with \"{}\", which this job does not use", expected.name));
    fail_file(job.file,
              fmt::format("was made with another file \"{}\": {} bytes, sha256 {}", expected.name, expected.bytes,
                          expected.sha256),
              fmt::format("the one found has {} bytes, sha256 {}", found->bytes, found->sha256));
  }
}

}  // namespace mgpu
