#include "cli/progress_printer.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "core/clock.h"

namespace mgpu {
namespace {

constexpr std::string_view red = "\033[31m";
constexpr std::string_view green = "\033[32m";
constexpr std::string_view plain = "\033[0m";
constexpr auto redraw_interval = std::chrono::milliseconds(50);
constexpr std::size_t shortest_name = 16;  // that devices leave of a longer one

std::size_t characters_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// Cuts from the left, where a path matters least, to `columns` characters.
std::string fit(const std::string& text, std::size_t columns) {
  const std::size_t characters = characters_of(text);
  if (characters <= columns) return text;
  if (columns < 4) return {};
  std::size_t begin = 0;
  for (std::size_t drop = characters - columns + 3; drop > 0 && begin < text.size(); --drop) {
    ++begin;
    while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) ++begin;
  }
  return "..." + text.substr(begin);
}

/// " | cuda:0 97% 7.1G"; what it does is said where that is not sampling.
std::string device_cell(const DeviceStatus& before, const DeviceStatus& now) {
  const double worked = now.busy_seconds - before.busy_seconds, passed = now.clock_seconds - before.clock_seconds;
  std::string does = "idle";
  if (worked > 0.0 && passed > 0.0)
    does = fmt::format("{}{}{:.0f}%", now.doing == "sample" ? "" : now.doing, now.doing == "sample" ? "" : " ",
                       100.0 * std::min(1.0, worked / passed));
  return fmt::format(" | {} {} {:.1f}G", now.id, does, static_cast<double>(now.bytes_in_use) / 0x1p30);
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
  std::size_t taken = count.size() + bar.size() + 2;
  const std::size_t columns = static_cast<std::size_t>(style_.columns);
  std::string devices;  // as many as there is room for beside the end of the picture's name
  for (const std::string& cell : device_cells()) {
    if (taken + cell.size() + std::min(characters_of(picture), shortest_name) > columns) break;
    devices += cell;
    taken += cell.size();
  }
  draw(count + fit(picture, columns > taken ? columns - taken : 0) + " " + bar + devices);
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

void ProgressPrinter::failure(const std::string& text) {
  const std::lock_guard lock(mutex_);
  log("error: " + text);
  say("error: " + text, red);
}

void ProgressPrinter::watch(DeviceWatch devices) {
  const std::lock_guard lock(mutex_);
  devices_ = style_.bars ? std::move(devices) : nullptr;
  drawn_devices_ = devices_ ? devices_() : std::vector<DeviceStatus>();
  if (drawn_devices_.size() < 2) devices_ = nullptr;
}

std::vector<std::string> ProgressPrinter::device_cells() {
  if (!devices_) return {};
  const std::vector<DeviceStatus> before = std::exchange(drawn_devices_, devices_());
  std::vector<std::string> cells;
  for (std::size_t i = 0; i < before.size(); ++i) cells.push_back(device_cell(before[i], drawn_devices_[i]));
  return cells;
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
  log_(fmt::format("{:10.3f} {}\n", seconds_since(start_), line));
}

}  // namespace mgpu
