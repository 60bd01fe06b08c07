#include "cli/job/read_job.h"

#include <filesystem>

#include "cli/job/checks/checks.h"
#include "cli/job/key_hints.h"
#include "cli/job/schema.h"
#include "cli/job/yaml_reader.h"

namespace mgpu {

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
  check_read(job);
  return job;
}

}  // namespace mgpu
