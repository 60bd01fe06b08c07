#include "cli/job/json_schema.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "cli/job/schema.h"

// The JSON Schema and the reference page, from the statements that read a job.

namespace mgpu {
namespace {

std::vector<Statement> job_statements() {
  std::vector<Statement> statements;
  Section section(statements);
  Job job;
  state_job(section, job);
  return statements;
}

std::string escape_cell(const std::string& text) {
  std::string result;
  for (const char c : text) result += c == '|' ? "\\|" : std::string(1, c);
  return result;
}

/// `shown` holds the maps that were written already: the allocations and the images' samplers have the keys of an
/// earlier one.
void write_rows(const std::vector<Statement>& statements, const std::string& path, std::set<std::string>& shown,
                std::string& text) {
  for (const Statement& s : statements) {
    const std::string name = path.empty() ? s.name : path + "." + s.name;
    const std::string standard = s.required ? "required" : s.standard.empty() ? "" : "`" + s.standard + "`";
    text += fmt::format("| `{}` | {} | {} | {} |\n", name, escape_cell(s.shape.words), escape_cell(standard),
                        escape_cell(s.doc));
    if (!s.shape.keys.empty() && shown.insert(fields::map_schema(s.shape.keys)).second)
      write_rows(s.shape.keys, name + s.shape.below, shown, text);
  }
}

}  // namespace

std::string job_schema() {
  auto schema = nlohmann::ordered_json::parse(fields::map_schema(job_statements()));
  nlohmann::ordered_json result{{"$schema", "http://json-schema.org/draft-07/schema#"},
                                {"title", "mgpu-render job"},
                                {"description", "Made by `mgpu-render schema`."}};
  result.update(schema);
  return result.dump(1) + "\n";
}

std::string job_reference() {
  std::string text =
      "# The job file\n\n"
      "Made by `mgpu-render schema --markdown` from the statements that read a job. `images[]` is each entry of a "
      "list.\n"
      "Paths are relative to the job file; those of `--set` to the working directory; `~/` is the home directory.\n"
      "`--set` takes the rest of its argument as the value of a key that takes text or a file, and as YAML for all "
      "others.\n\n"
      "| key | type | default | |\n|---|---|---|---|\n";
  std::set<std::string> shown;
  write_rows(job_statements(), "", shown, text);
  return text;
}

}  // namespace mgpu
