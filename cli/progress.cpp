#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace mgpu {
namespace {

constexpr std::string_view red = "\033[31m";
constexpr std::string_view green = "\033[32m";
constexpr std::string_view plain = "\033[0m";
constexpr auto redraw_interval = std::chrono::milliseconds(50);

/// Cuts from the left, where a path matters least, to `columns` characters.
std::string fit(const std::string& text, std::size_t columns) {
  std::size_t characters = 0;
  for (const char c : text) characters += (static_cast<unsigned char>(c) & 0xC0) == 0x80 ? 0 : 1;
  if (characters <= columns) return text;
  if (columns < 4) return {};
  std::size_t begin = 0;
  for (std::size_t drop = characters - columns + 3; drop > 0 && begin < text.size(); --drop) {
    ++begin;
    while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) ++begin;
  }
  return "..." + text.substr(begin);
}

}  // namespace

ProgressStyle style_of_terminal(ProgressStyle::Amount amount) {
  ProgressStyle style;
  style.amount = amount;
  const char* term = std::getenv("TERM");
  const char* no_color = std::getenv("NO_COLOR");
  const bool terminal = ::isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
  style.bars = terminal && amount != ProgressStyle::Amount::Quiet;
  style.color = terminal && (no_color == nullptr || *no_color == '\0');
  struct winsize window {};
  if (terminal && ::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) style.columns = window.ws_col;
  return style;
}

ProgressPrinter::ProgressPrinter(ProgressStyle style, Write write, Write log)
    : style_(style), write_(std::move(write)), log_(std::move(log)) {}

ProgressPrinter::~ProgressPrinter() {
  clear();
}

void ProgressPrinter::phase(const std::string& picture, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const std::string line = fmt::format("{}: {}", picture, name);
  log(line);
  if (style_.amount == ProgressStyle::Amount::Verbose) say(line);
  draw(line);
}

void ProgressPrinter::step(const std::string& picture, int step, int steps) {
  const std::lock_guard lock(mutex_);
  log(fmt::format("{}: step {} of {}", picture, step, steps));
  const auto now = std::chrono::steady_clock::now();
  if (!style_.bars || (step != steps && now - drawn_ < redraw_interval)) return;
  drawn_ = now;
  constexpr int width = 24;
  const int filled = steps > 0 ? width * step / steps : 0;
  const std::string bar = fmt::format("[{}{}] {}/{}", std::string(static_cast<std::size_t>(filled), '#'),
                                      std::string(static_cast<std::size_t>(width - filled), ' '), step, steps);
  const std::string count = total_ > 0 ? fmt::format("{}/{} ", done_ + 1, total_) : "";
  const std::size_t taken = count.size() + bar.size() + 2;
  const std::size_t columns = static_cast<std::size_t>(style_.columns);
  draw(count + fit(picture, columns > taken ? columns - taken : 0) + " " + bar);
}

void ProgressPrinter::finished(const std::string& picture, const std::string& status, double seconds,
                               const std::string& error) {
  const std::lock_guard lock(mutex_);
  ++done_;
  std::string line = total_ > 0 ? fmt::format("[{}/{}] {}: {}", done_, total_, picture, status)
                                : fmt::format("{}: {}", picture, status);
  if (status == "ok") line += fmt::format(", {:.1f} s", seconds);
  if (!error.empty()) line += ": " + error;
  log(line);
  const bool failed = status == "failed";
  if (failed || style_.amount != ProgressStyle::Amount::Quiet) say(line, failed ? red : green);
}

void ProgressPrinter::note(const std::string& text) {
  const std::lock_guard lock(mutex_);
  log(text);
  if (style_.amount != ProgressStyle::Amount::Quiet) say(text);
}

void ProgressPrinter::say(const std::string& line, std::string_view color) {
  clear();
  if (style_.color && !color.empty()) {
    write_(fmt::format("{}{}{}\n", color, line, plain));
  } else {
    write_(line + "\n");
  }
}

void ProgressPrinter::draw(const std::string& line) {
  if (!style_.bars) return;
  write_("\r\033[K" + fit(line, static_cast<std::size_t>(style_.columns - 1)));
  line_is_drawn_ = true;
}

void ProgressPrinter::clear() {
  if (line_is_drawn_) write_("\r\033[K");
  line_is_drawn_ = false;
}

void ProgressPrinter::log(const std::string& line) {
  if (!log_) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  log_(fmt::format("{:10.3f} {}\n", seconds, line));
}

}  // namespace mgpu
