#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cli/job/yaml_reader.h"

namespace mgpu {

// What is known of the job's keys as a whole, from the statements that read it (cli/job/schema.h).

/// Whether the key at a path of --set ("images.0.prompt", "model_paths.1") takes text or a file's name.
bool is_text_key(std::string_view path);

/// Whether the job has a key of that name, anywhere.
bool is_job_key(std::string_view name);

/// What to do about a key that is not known at `path` ("" for the job, "images.0"): it belongs elsewhere, is called
/// otherwise here, or is misspelt. `known` are the keys of that place.
std::string unknown_key_hint(std::string_view key, std::string_view path, std::span<const std::string_view> known);

/// Throws Error at the first text in quotes whose later lines read as keys of the job: its closing quote is missing,
/// and a quote further down took its place.
void check_quotes(const YamlNode& node, const Source& source);

}  // namespace mgpu
