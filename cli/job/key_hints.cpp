#include "cli/job/key_hints.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <vector>

#include "cli/job/schema.h"
#include "cli/job/suggest.h"
#include "cli/job/yaml_errors.h"

namespace mgpu {
namespace {

struct JobKeys {
  std::map<std::string, bool, std::less<>> text_by_path;                ///< "images[].prompt": whether it takes text
  std::multimap<std::string, std::string, std::less<>> places_by_name;  ///< "prompt": "images[]"; shallow ones first
};

void add_keys(const std::vector<Statement>& statements, const std::string& place, JobKeys& keys) {
  for (const Statement& s : statements) {
    const std::string path = place.empty() ? s.name : place + "." + s.name;
    keys.text_by_path[path] = s.shape.is_text;
    if (s.shape.items_are_text) keys.text_by_path[path + "[]"] = true;
    keys.places_by_name.emplace(s.name, place);
  }
  for (const Statement& s : statements) {
    const std::string path = place.empty() ? s.name : place + "." + s.name;
    if (!s.shape.keys.empty()) add_keys(s.shape.keys, path + s.shape.below, keys);
  }
}

const JobKeys& job_keys() {
  static const JobKeys keys = [] {
    std::vector<Statement> statements;
    Section section(statements);
    Job job;
    state_job(section, job);
    JobKeys out;
    add_keys(statements, "", out);
    return out;
  }();
  return keys;
}

/// "images.0.prompt" -> "images[].prompt".
std::string without_numbers(std::string_view path) {
  std::string out;
  while (true) {
    const std::string_view part = path.substr(0, path.find('.'));
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    if (number) {
      out += "[]";
    } else {
      if (!out.empty()) out += '.';
      out += part;
    }
    if (part.size() == path.size()) return out;
    path.remove_prefix(part.size() + 1);
  }
}

/// "images[].sampler" -> "images.sampler", as a person says it.
std::string spoken(std::string_view place) {
  std::string out(place);
  for (std::size_t at = out.find("[]"); at != std::string::npos; at = out.find("[]")) out.erase(at, 2);
  return out;
}

/// Keys by the names that other programs have for them.
struct Synonym {
  std::string_view theirs, ours;
};
constexpr std::array<Synonym, 40> synonyms{{{"model", "checkpoint"},
                                            {"ckpt", "checkpoint"},
                                            {"ckpt_name", "checkpoint"},
                                            {"model_path", "checkpoint"},
                                            {"unet", "checkpoint"},
                                            {"diffusion_model", "checkpoint"},
                                            {"clip", "encoders"},
                                            {"text_encoder", "encoders"},
                                            {"text_encoders", "encoders"},
                                            {"vae_name", "vae"},
                                            {"lora", "loras"},
                                            {"sampler_name", "name"},
                                            {"sampling_method", "name"},
                                            {"schedule", "scheduler"},
                                            {"cfg_scale", "cfg"},
                                            {"guidance_scale", "cfg"},
                                            {"num_inference_steps", "steps"},
                                            {"sampling_steps", "steps"},
                                            {"denoising_strength", "denoise"},
                                            {"stop_at_clip_layer", "clip_skip"},
                                            {"text", "prompt"},
                                            {"positive", "prompt"},
                                            {"positive_prompt", "prompt"},
                                            {"negative_prompt", "negative"},
                                            {"noise_seed", "seed"},
                                            {"n_iter", "count"},
                                            {"num_images", "count"},
                                            {"batch_size", "batch"},
                                            {"batch_count", "count"},
                                            {"image", "init_image"},
                                            {"input_image", "init_image"},
                                            {"mask_image", "mask"},
                                            {"gpus", "gpu_ids"},
                                            {"devices", "gpu_ids"},
                                            {"device", "gpu_ids"},
                                            {"vram", "vram_limit"},
                                            {"precision", "dtype"},
                                            {"output_dir", "directory"},
                                            {"output_directory", "directory"},
                                            {"filename", "name"}}};

/// Of the places that have a key, the one that is meant at `here`: below it, else the shallowest.
std::string place_for(std::string_view key, std::string_view here) {
  const auto [first, last] = job_keys().places_by_name.equal_range(key);
  for (auto place = first; place != last; ++place)
    if (!here.empty() && place->second.starts_with(here)) return place->second;
  return first->second;
}

/// Whether the keys there are parts of a model, which other programs' keys share names with.
bool names_parts(std::string_view here) {
  constexpr std::string_view kPlaces[] = {"dtype", "allocation", "encoders", "tokenizers"};
  return std::ranges::find(kPlaces, here) != std::end(kPlaces);
}

std::string renamed_hint(std::string_view theirs, std::string_view here) {
  const auto found = std::ranges::find(synonyms, theirs, &Synonym::theirs);
  if (found == synonyms.end()) return {};
  const std::string place =
      theirs == "filename" || theirs.starts_with("output") ? "output" : place_for(found->ours, here);
  if (place == here) return fmt::format("did you mean \"{}\"?", found->ours);
  return place.empty() ? fmt::format("did you mean \"{}\"? It belongs to the job itself", found->ours)
                       : fmt::format("did you mean \"{}\", under {}?", found->ours, spoken(place));
}

/// Whether a line of a text reads as a key of the job: `- seed: 7`, `"width": 64`. `column`, from 0, is the key's.
bool reads_as_key(std::string_view line, std::size_t& column) {
  column = std::min(line.find_first_not_of(" \t"), line.size());
  while (line.substr(column).starts_with("- ")) column = std::min(line.find_first_not_of(' ', column + 1), line.size());
  std::string_view rest = line.substr(column);
  const bool quoted = rest.starts_with('"') || rest.starts_with('\'');
  if (quoted) rest.remove_prefix(1);
  const std::size_t end = rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_");
  if (end == std::string_view::npos || !is_job_key(rest.substr(0, end))) return false;
  rest.remove_prefix(end);
  if (quoted) rest.remove_prefix(std::min<std::size_t>(rest.size(), 1));
  return rest == ":" || rest.starts_with(": ");
}

void check_text(const YamlNode& node, const Source& source) {
  const std::string_view first = source.line(node.mark.line);
  const bool in_flow =
      first.substr(0, static_cast<std::size_t>(node.mark.column)).find_first_of("{[") != std::string_view::npos;
  std::size_t own = std::min(first.find_first_not_of(" \t"), first.size());
  while (first.substr(own).starts_with("- ")) own = std::min(first.find_first_not_of(' ', own + 1), first.size());
  for (int line = node.mark.line + 1; line <= node.last_line; ++line) {
    std::size_t column = 0;
    if (!reads_as_key(source.line(line), column) || (!in_flow && column > own)) continue;
    throw unclosed_quote(source, source.offset_of(node.mark),
                         fmt::format("line {} reads as a key, and would be a part of the text; where it shall be, "
                                     "write the text as a block: |",
                                     line));
  }
}

}  // namespace

bool is_text_key(std::string_view path) {
  const auto found = job_keys().text_by_path.find(without_numbers(path));
  return found != job_keys().text_by_path.end() && found->second;
}

bool is_job_key(std::string_view name) {
  return job_keys().places_by_name.contains(name);
}

std::string unknown_key_hint(std::string_view key, std::string_view path, std::span<const std::string_view> known) {
  const std::string here = without_numbers(path);
  if (is_job_key(key)) {
    const std::string place = place_for(key, here);
    if (place.empty()) return fmt::format("\"{}\" belongs to the job itself, not under {}", key, spoken(here));
    return fmt::format("\"{}\" belongs under {}", key, spoken(place));
  }
  if (const std::size_t colon = key.find(':'); colon != std::string_view::npos && is_job_key(key.substr(0, colon)))
    return fmt::format("a blank follows the colon: \"{}: {}\"", key.substr(0, colon), key.substr(colon + 1));
  if (key == "<<") return "merge keys are of an older YAML: write the keys out";
  if (std::string hint = names_parts(here) ? "" : renamed_hint(key, here); !hint.empty()) return hint;
  if (std::string hint = did_you_mean(key, known); !hint.empty()) return hint;
  return fmt::format("known are {}", fmt::join(known, ", "));
}

void check_quotes(const YamlNode& node, const Source& source) {
  if (node.last_line > node.mark.line && node.mark.line > 0 && node.mark.file == source.name())
    check_text(node, source);
  for (const YamlNode& item : node.items) check_quotes(item, source);
  for (const YamlNode::Entry& entry : node.entries) check_quotes(entry.value, source);
}

}  // namespace mgpu
