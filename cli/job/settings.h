#pragma once

#include <string>
#include <string_view>

#include "cli/job/yaml_reader.h"

namespace mgpu {

/// A value given on the command line: --set path=value.
struct Setting {
  std::string path;   ///< "sampler.steps", "images.0.seed"
  std::string value;  ///< YAML; of a key that takes text, the text
};

/// Splits "path=value". Throws Error when it is neither.
Setting parse_setting(std::string_view text);

/// What the value of a --set is read as.
enum class SettingKind : std::uint8_t {
  Yaml,  ///< a value or a structure in YAML
  Text,  ///< the text as it is, unless quotes enclose it as a whole, which are YAML's: `output.report=""`
};

/// Sets the value at `path` ("sampler.steps", "images.0.seed"), making maps on the way; what it puts in is marked
/// "--set path=value". Throws Error when the path does not lead anywhere or the value is not YAML where it has to be.
void set_value(YamlNode& root, const std::string& path, const std::string& value, SettingKind kind);

}  // namespace mgpu
