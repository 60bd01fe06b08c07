#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/render.h"
#include "cli/signals.h"
#include "cli/version.h"
#include "core/arithmetic.h"
#include "core/memory.h"

namespace mgpu {
namespace {

void print(std::FILE* stream, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

Exit run(const Arguments& arguments) {
  using Amount = ProgressStyle::Amount;
  const Amount amount = arguments.quiet ? Amount::Quiet : arguments.verbose ? Amount::Verbose : Amount::Normal;
  std::unique_ptr<std::FILE, CloseFile> log;
  if (!arguments.log.empty()) {
    log.reset(std::fopen(arguments.log.c_str(), "w"));
    if (!log) fail_file(arguments.log, "the log cannot be written", "name another with --log");
  }
  ProgressPrinter progress(
      style_of_terminal(amount), [](std::string_view text) { print(stderr, text); },
      log ? ProgressPrinter::Write([&](std::string_view text) { print(log.get(), text); }) : nullptr);
  std::vector<Job> jobs = load_jobs(arguments);
  install_signal_handlers();
  const RenderResult result = render(std::move(jobs), arguments.render, progress);
  for (const Report& report : result.reports) {
    if (!arguments.quiet) print(stderr, to_tables(report));
    if (arguments.json) print(stdout, to_json(report));
  }
  return result.code;
}

Exit answer(const Answer& reply) {
  print(stdout, reply.text);
  print(stderr, reply.error);
  return reply.exit;
}

Exit dispatch(const Arguments& arguments) {
  using Command = Arguments::Command;
  switch (arguments.command) {
    case Command::Help:
      return answer({Exit::Ok, arguments.text});
    case Command::Run:
      return run(arguments);
    case Command::Plan:
      return answer(plan(arguments));
    case Command::Validate:
      return answer(validate(arguments));
    case Command::Inspect:
      return answer(inspect(arguments));
    case Command::Devices:
      return answer(devices(arguments));
    case Command::Sigmas:
      return answer(sigmas(arguments));
    case Command::Compare:
      return answer(compare(arguments));
    case Command::Schema:
      return answer({Exit::Ok, arguments.markdown ? job_reference() : job_schema()});
  }
  return Exit::Usage;
}

}  // namespace
}  // namespace mgpu

int main(int argc, char** argv) {
  mgpu::prefer_separate_queues();
  mgpu::set_exact_arithmetic();
  try {
    return static_cast<int>(mgpu::dispatch(mgpu::parse_arguments(argc, argv)));
  } catch (const mgpu::Error& e) {
    mgpu::print(stderr, fmt::format("error: {}\n", e.what()));
    return static_cast<int>(e.code());
  } catch (const std::exception& e) {
    mgpu::print(stderr, fmt::format("error: {}\n  this should not happen: please report it with the job\n", e.what()));
    return static_cast<int>(mgpu::Exit::ImageFailed);
  }
}
