#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "core/progress.h"

namespace mgpu {

/// How much is said, and whether with bars.
struct ProgressStyle {
  enum class Amount : std::uint8_t { Quiet, Normal, Verbose };
  Amount amount = Amount::Normal;
  bool bars = false;  ///< a line that is drawn over and over
  bool color = false;
  int columns = 80;  ///< of the terminal
};

/// Bars only where stderr is a terminal that can draw them (TERM is set and not "dumb"); colours unless NO_COLOR is
/// set.
ProgressStyle style_of_terminal(ProgressStyle::Amount amount);

/// Draws progress: on a terminal one line with a bar, else one plain line a picture. Quiet: failures alone. Verbose:
/// phases and notes too. A log gets everything, in plain lines with the seconds since the start. May be called from
/// several threads.
class ProgressPrinter final : public Progress {
 public:
  using Write = std::function<void(std::string_view)>;

  /// `log` may be empty.
  ProgressPrinter(ProgressStyle style, Write write, Write log = {});
  ~ProgressPrinter() override;

  /// How many pictures there will be; 0: unknown.
  void set_total(int pictures) { total_ = pictures; }

  void phase(const std::string& picture, const std::string& name) override;
  void step(const std::string& picture, int step, int steps) override;
  void finished(const std::string& picture, const std::string& status, double seconds,
                const std::string& error) override;
  void note(const std::string& text) override;
  void failure(const std::string& text) override;
  /// Several devices are shown beside the bar, each with the share of the time in which it worked since it was drawn
  /// last, and its memory. They are asked only when the bar is drawn.
  void watch(DeviceWatch devices) override;

 private:
  void say(const std::string& line, std::string_view color = {});  // a line that stays
  void draw(const std::string& line);                              // the line that is drawn over
  std::vector<std::string> device_cells();                         // beside the bar; none for a device alone
  void clear();
  void log(const std::string& line);

  ProgressStyle style_;
  Write write_;
  Write log_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
  DeviceWatch devices_;
  std::vector<DeviceStatus> drawn_devices_;
  int total_ = 0;
  int done_ = 0;
  bool line_is_drawn_ = false;
};

}  // namespace mgpu
