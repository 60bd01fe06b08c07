#include "cli/arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>

#include "cli/job/suggest.h"
#include "cli/version.h"

namespace mgpu {
namespace {

using Command = Arguments::Command;

constexpr const char* footer =
    "Examples:\n"
    "  mgpu-render run job.yaml\n"
    "  mgpu-render run job.yaml --set sampler.steps=20 --set images.0.seed=7 --overwrite\n"
    "  mgpu-render run out/job-0000-42.png          render a picture again\n"
    "  mgpu-render run jobs/*.yaml --part 0/4 --resume\n"
    "  mgpu-render plan job.yaml --devices cuda:0=8GB,cuda:1=8GB\n"
    "  mgpu-render inspect flux1-dev.safetensors\n"
    "Exit codes: 0 done; 1 a picture failed; 2 usage, job or files; 3 does not fit; 4 device; 128 + N on signal N.";

constexpr std::array<std::string_view, 8> commands{"run",     "plan",   "validate", "inspect",
                                                   "devices", "sigmas", "compare",  "schema"};

/// Texts that are parsed further once CLI11 is through.
struct Raw {
  std::vector<std::string> settings;
  std::string only;
  std::string part;
  std::string preview;
  bool portable = false;
};

void add_jobs(CLI::App& command, Arguments& arguments, Raw& raw) {
  command.add_option("JOB", arguments.files, "job files, or pictures of ours; - reads a job from standard input")
      ->required();
  command.add_option("--set", raw.settings, "path=value: wins over the job file, as sampler.steps=20")
      ->allow_extra_args(false)
      ->type_name("PATH=VALUE");
}

void add_portable(CLI::App& command, Raw& raw) {
  command.add_flag("--portable", raw.portable,
                   "on the CPU, with the same bytes on every x86-64 CPU that has AVX2: exact: portable in every job");
}

void add_amount(CLI::App& command, Arguments& arguments) {
  command.add_flag("--quiet,-q", arguments.quiet, "say nothing but errors");
  command.add_flag("--verbose,-v", arguments.verbose, "say more");
  command.add_option("--log", arguments.log, "write everything that happens to a file")->type_name("FILE");
}

void add_json(CLI::App& command, Arguments& arguments) {
  command.add_flag("--json", arguments.json, "machine-readable on stdout");
}

void add_commands(CLI::App& app, Arguments& arguments, Raw& raw) {
  CLI::App& run = *app.add_subcommand("run", "render the pictures of jobs");
  add_jobs(run, arguments, raw);
  add_portable(run, raw);
  add_json(run, arguments);
  add_amount(run, arguments);
  run.add_option("--only", raw.only, "pictures by number, from 0: 0,3-5")->type_name("NUMBERS");
  run.add_option("--part", raw.part, "the I-th of N parts of the pictures, from 0")->type_name("I/N");
  run.add_flag("--resume", arguments.render.resume, "render again what exists but was made otherwise");
  run.add_flag("--overwrite", arguments.render.overwrite, "render again what exists");
  run.add_option("--preview", raw.preview, "every N steps a small picture of what is coming: NAME.preview.png")
      ->type_name("N");
  CLI::App& plan =
      *app.add_subcommand("plan", "say which device would hold and run what, and how much memory it takes");
  add_jobs(plan, arguments, raw);
  add_portable(plan, raw);
  add_json(plan, arguments);
  plan.add_option("--devices", arguments.devices, "devices to suppose: cuda:0=8GB,cuda:1=24GB@0.5 (at half the speed)")
      ->type_name("DEVICES");
  CLI::App& validate = *app.add_subcommand("validate", "check jobs, their files and headers, without a device");
  add_jobs(validate, arguments, raw);
  add_portable(validate, raw);
  add_json(validate, arguments);
  CLI::App& inspect = *app.add_subcommand("inspect", "say what a checkpoint holds, or print the job of a picture");
  inspect.add_option("FILE", arguments.files, "a safetensors file, or a picture of ours")->required();
  add_json(inspect, arguments);
  add_json(*app.add_subcommand("devices", "list the devices of this machine"), arguments);
  CLI::App& sigmas = *app.add_subcommand("sigmas", "print a job's noise levels, one a line");
  add_jobs(sigmas, arguments, raw);
  CLI::App& compare = *app.add_subcommand("compare", "compare two pictures, or two folders of them");
  compare.add_option("PICTURES", arguments.files, "two pictures or two folders")->required()->expected(2);
  compare.add_option("--difference", arguments.difference, "write a picture of the differences, times 16")
      ->type_name("FILE");
  add_json(compare, arguments);
  CLI::App& schema = *app.add_subcommand("schema", "print the JSON Schema of a job file")->group("");
  schema.add_flag("--markdown", arguments.markdown, "the reference page instead");
}

/// CLI11's message in our wording: lower-case first letter, no full stop.
std::string worded(std::string message) {
  while (!message.empty() && (message.back() == '.' || message.back() == '\n')) message.pop_back();
  if (message.size() > 1 && !std::isupper(static_cast<unsigned char>(message[1])))
    message[0] = static_cast<char>(std::tolower(message[0]));
  return message;
}

/// Throws Error at an option or file that is an empty text, as an unset variable of the shell leaves: it would mean
/// another thing than what was asked for.
void refuse_empty(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options())
    for (const std::string& value : option->results())
      if (value.empty())
        throw Error(Exit::Usage, Mark{}, fmt::format("{} is empty", option->get_name()),
                    "leave it out, or give it a value");
}

/// The first word that is neither a flag nor a flag's value.
std::vector<std::string>::iterator first_plain_word(std::vector<std::string>& words) {
  constexpr std::array<std::string_view, 7> take_a_value{"--set",        "--only",    "--part",   "--log",
                                                         "--difference", "--devices", "--preview"};
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (std::find(take_a_value.begin(), take_a_value.end(), *word) != take_a_value.end()) {
      if (++word == words.end()) break;
    } else if (*word == "-" || !word->starts_with('-')) {
      return word;
    }
  }
  return words.end();
}

}  // namespace

Arguments parse_arguments(int argc, const char* const* argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const auto first = first_plain_word(words);
  const bool names_command =
      first != words.end() && std::find(commands.begin(), commands.end(), *first) != commands.end();
  if (first != words.end() && !names_command) {
    const bool looks_like_file = *first == "-" || first->find_first_of("./") != std::string::npos;
    const std::string hint = did_you_mean(*first, commands);
    if (!looks_like_file && !hint.empty())
      throw Error(Exit::Usage, Mark{}, fmt::format("unknown command \"{}\"", *first), hint);
    words.insert(words.begin(), "run");
  } else if (first != words.end()) {
    std::rotate(words.begin(), first, first + 1);  // flags may stand before the command
  }

  Arguments arguments;
  Raw raw;
  CLI::App app("Renders diffusion images from YAML jobs on the GPUs of one machine, or on its CPU.",
               std::string(program_name));
  app.set_version_flag("--version", fmt::format("{} {}", program_name, program_version));
  app.footer(footer);
  app.require_subcommand(1);
  add_commands(app, arguments, raw);
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    arguments.text = chosen.empty() ? app.help() : chosen.front()->help();
    return arguments;
  } catch (const CLI::CallForVersion&) {
    arguments.text = app.version() + "\n";
    return arguments;
  } catch (const CLI::ParseError& e) {
    throw Error(Exit::Usage, Mark{}, worded(e.what()), "mgpu-render --help lists what there is");
  }
  refuse_empty(*app.get_subcommands().front());
  const std::string name = app.get_subcommands().front()->get_name();
  constexpr std::array values{Command::Run,     Command::Plan,   Command::Validate, Command::Inspect,
                              Command::Devices, Command::Sigmas, Command::Compare,  Command::Schema};
  arguments.command =
      values[static_cast<std::size_t>(std::find(commands.begin(), commands.end(), name) - commands.begin())];
  for (const std::string& setting : raw.settings) arguments.settings.push_back(parse_setting(setting));
  if (raw.portable) arguments.settings.push_back({"exact", "portable"});
  if (!raw.only.empty()) arguments.render.only = parse_only(raw.only);
  if (!raw.part.empty()) arguments.render.part = parse_part(raw.part);
  if (!raw.preview.empty()) arguments.render.preview = parse_preview(raw.preview);
  if (arguments.quiet && arguments.verbose)
    throw Error(Exit::Usage, Mark{}, "--quiet and --verbose exclude each other", "take one of them");
  if (arguments.render.resume && arguments.render.overwrite)
    throw Error(Exit::Usage, Mark{}, "--resume and --overwrite exclude each other",
                "--overwrite renders everything again");
  return arguments;
}

}  // namespace mgpu
