#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/compare.h"
#include "cli/files/json_text.h"
#include "cli/job/checks/checks.h"
#include "cli/job/json_schema.h"
#include "cli/job/source.h"
#include "cli/progress_printer.h"
#include "cli/register_families.h"
#include "cli/render/render.h"
#include "cli/signals.h"
#include "cli/version.h"
#include "core/arithmetic.h"
#include "core/memory.h"
#include "core/strings.h"

namespace mgpu {
namespace {

/// Returns 0, or errno where the text did not get out.
int print(std::FILE* stream, std::string_view text) {
  errno = 0;
  const bool is_out = std::fwrite(text.data(), 1, text.size(), stream) == text.size() && std::fflush(stream) == 0;
  return is_out ? 0 : errno != 0 ? errno : EIO;
}

/// What a terminal shows of an error: no more than is read, however long the names in it are.
std::string error_text(std::string_view what) {
  constexpr std::size_t kMost = 1900;  // bytes
  return fmt::format("error: {}\n", without_middle(printable(what), kMost));
}

/// Prints data that somebody waits for. Says where it is lost, and returns the exit code for that.
Exit print_data(std::string_view text) {
  const int fault = text.empty() ? 0 : print(stdout, text);
  if (fault == 0) return Exit::Ok;
  print(stderr, fmt::format("error: standard output: cannot be written: {}\n", std::strerror(fault)));
  return Exit::ImageFailed;
}

/// What --log asks for. A line that cannot be written does not end the run: it is said at the end.
class Log {
 public:
  explicit Log(const std::string& path) : path_(path) {
    if (path.empty()) return;
    file_ = std::fopen(path.c_str(), "we");
    if (!file_) fail_file(path, "the log cannot be written", "name another with --log");
  }
  ~Log() {
    if (file_) std::fclose(file_);
  }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  ProgressPrinter::Write writer() {
    if (!file_) return nullptr;
    return [this](std::string_view text) {
      if (const int fault = print(file_, text); fault != 0 && fault_ == 0) fault_ = fault;
    };
  }
  Exit close() const {
    if (fault_ == 0) return Exit::Ok;
    print(stderr, fmt::format("error: {}: cannot be written: {}\n", path_, std::strerror(fault_)));
    return Exit::ImageFailed;
  }

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
  int fault_ = 0;
};

Exit run(const Arguments& arguments) {
  using Amount = ProgressStyle::Amount;
  const Amount amount = arguments.quiet ? Amount::Quiet : arguments.verbose ? Amount::Verbose : Amount::Normal;
  CheckedJobs jobs = check_jobs(load_jobs(arguments), {arguments.render.only, arguments.render.part,
                                                       arguments.render.preview > 0, arguments.log});
  Log log(arguments.log);  // behind the checks, so that it empties no file that it must not
  ProgressPrinter progress(
      style_of_terminal(amount), [](std::string_view text) { print(stderr, text); }, log.writer());
  const RenderResult result = render(std::move(jobs), arguments.render, progress);
  std::vector<std::string> reports;
  for (const Report& report : result.reports) {
    if (!arguments.quiet) print(stderr, to_tables(report));
    if (arguments.json) reports.push_back(to_json(report));
  }
  Exit code = std::max(result.code, log.close());
  if (arguments.json) code = std::max(code, print_data(one_document(reports)));
  return code;
}

Exit answer(const Answer& reply) {
  const Exit printed = print_data(reply.text);
  print(stderr, printable(reply.error));
  return std::max(reply.exit, printed);
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

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Signals are handled before the libraries' own start-up, which takes most of a second. (A sanitizer's is behind this.)
__attribute__((section(".preinit_array"), used)) static void (*const handle_signals)() = mgpu::install_signal_handlers;
#endif

int main(int argc, char** argv) {
  mgpu::install_signal_handlers();
  mgpu::open_standard_streams();
  mgpu::prefer_separate_queues();
  try {
    mgpu::set_exact_arithmetic();
    mgpu::register_families();
    return static_cast<int>(mgpu::dispatch(mgpu::parse_arguments(argc, argv)));
  } catch (const mgpu::Error& e) {
    mgpu::print(stderr, mgpu::error_text(e.what()));
    return static_cast<int>(e.code());
  } catch (const std::exception& e) {
    mgpu::print(stderr, mgpu::error_text(e.what()) + "  this should not happen: please report it with the job\n");
    return static_cast<int>(mgpu::Exit::ImageFailed);
  } catch (...) {
    mgpu::print(stderr, "error: something failed that does not say what it is\n  please report it with the job\n");
    return static_cast<int>(mgpu::Exit::ImageFailed);
  }
}
