#include <doctest/doctest.h>

#include "cli/progress_printer.h"

using namespace mgpu;

namespace {

using Amount = ProgressStyle::Amount;

std::string render_two(ProgressStyle style, std::string* log = nullptr) {
  std::string text;
  {
    ProgressPrinter progress(
        style, [&](std::string_view part) { text += part; },
        log ? ProgressPrinter::Write([log](std::string_view part) { *log += part; }) : nullptr);
    progress.set_total(2);
    progress.note("on the CPU");
    progress.phase("a.png", "sample");
    progress.step("a.png", 1, 2);
    progress.step("a.png", 2, 2);
    progress.finished("a.png", "ok", 1.25, "");
    progress.finished("b.png", "failed", 0.0, "disk full");
  }
  return text;
}

}  // namespace

TEST_SUITE_BEGIN("progress");

TEST_CASE("one plain line a picture where there is no terminal") {
  CHECK(render_two({Amount::Normal, false, false, 80}) ==
        "on the CPU\n[1/2] a.png: ok, 1.2 s\n[2/2] b.png: failed: disk full\n");
}

TEST_CASE("quiet says failures alone, verbose the phases too") {
  CHECK(render_two({Amount::Quiet, false, false, 80}) == "[2/2] b.png: failed: disk full\n");
  CHECK(render_two({Amount::Verbose, false, false, 80}) ==
        "on the CPU\na.png: sample\n[1/2] a.png: ok, 1.2 s\n[2/2] b.png: failed: disk full\n");
}

TEST_CASE("a bar on a terminal, which leaves only the plain lines behind") {
  const std::string text = render_two({Amount::Normal, true, false, 60});
  CHECK(text.find("\r\033[K1/2 a.png [########################] 2/2") != std::string::npos);
  CHECK(text.find("\r\033[K[1/2] a.png: ok, 1.2 s\n") != std::string::npos);
  CHECK(text.ends_with("[2/2] b.png: failed: disk full\n"));
  CHECK(text.find("\033[3") == std::string::npos);
  CHECK(render_two({Amount::Normal, true, true, 60}).find("\033[31m[2/2] b.png: failed: disk full\033[0m\n") !=
        std::string::npos);
}

TEST_CASE("several devices stand beside the bar, with their share of the time since they were drawn") {
  const std::uint64_t gib = std::uint64_t{1} << 30;
  std::vector<DeviceStatus> now = {{"cuda:0", "sample", 5.0, 100.0, 7 * gib + gib / 10},
                                   {"cuda:1", "sample", 2.0, 100.0, 7 * gib}};
  int asked = 0;
  const auto line_of = [&](int columns, const std::string& picture, const std::vector<DeviceStatus>& before,
                           const std::vector<DeviceStatus>& after, bool bars = true) {
    std::string text;
    ProgressPrinter progress({Amount::Normal, bars, false, columns}, [&](std::string_view part) { text += part; });
    std::vector<DeviceStatus> answer = before;
    progress.watch([&] { return ++asked, answer; });
    answer = after;
    progress.step(picture, 2, 2);
    std::string drawn = text;  // before the line is cleared with its printer
    return drawn;
  };
  const auto later = [&](double first, double second, const std::string& doing = "sample") {
    std::vector<DeviceStatus> out = now;
    for (DeviceStatus& device : out) device.clock_seconds += 10.0;
    out[0].busy_seconds += first;
    out[1].busy_seconds += second;
    out[1].doing = doing;
    return out;
  };
  const std::string bar = " [########################] 2/2";
  CHECK(line_of(100, "a.png", now, later(9.7, 9.5)) == "\r\033[Ka.png" + bar + " | cuda:0 97% 7.1G | cuda:1 95% 7.0G");
  CHECK(line_of(100, "a.png", now, later(11.0, 4.04, "decode")) ==
        "\r\033[Ka.png" + bar + " | cuda:0 100% 7.1G | cuda:1 decode 40% 7.0G");
  CHECK(line_of(100, "a.png", now, later(0.0, 5.0)) == "\r\033[Ka.png" + bar + " | cuda:0 idle 7.1G | cuda:1 50% 7.0G");
  CHECK(asked == 6);

  // Too narrow: first the name goes, down to its last 16 columns, then the devices from the right, then the name.
  const std::string name = "out/of/the/way/a-fox-in-snow.png";
  const auto at = [&](int columns) { return line_of(columns, name, now, later(9.7, 9.5)).substr(4); };
  CHECK(at(100) == name + bar + " | cuda:0 97% 7.1G | cuda:1 95% 7.0G");
  CHECK(at(99) == "...of/the/way/a-fox-in-snow.png" + bar + " | cuda:0 97% 7.1G | cuda:1 95% 7.0G");
  CHECK(at(84) == "...x-in-snow.png" + bar + " | cuda:0 97% 7.1G | cuda:1 95% 7.0G");
  CHECK(at(83) == name + bar + " | cuda:0 97% 7.1G");
  CHECK(at(66) == "...x-in-snow.png" + bar + " | cuda:0 97% 7.1G");
  CHECK(at(65) == name + bar);
  CHECK(at(48) == "...x-in-snow.png" + bar);

  asked = 0;
  now.pop_back();
  CHECK(line_of(100, "a.png", now, now) == "\r\033[Ka.png" + bar);  // a device alone is not shown
  CHECK(asked == 1);
  CHECK(line_of(100, "a.png", now, now, false) == "");  // nor is one asked where no bar is drawn
  CHECK(asked == 1);
}

TEST_CASE("devices are asked no more once they are not to be watched") {
  std::string text;
  ProgressPrinter progress({Amount::Normal, true, false, 100}, [&](std::string_view part) { text += part; });
  progress.watch([] { return std::vector<DeviceStatus>(2); });
  progress.watch({});
  progress.step("a.png", 2, 2);
  CHECK(text == "\r\033[Ka.png [########################] 2/2");
}

TEST_CASE("a long name is cut from the left, by characters") {
  std::string text;
  ProgressPrinter progress({Amount::Normal, true, false, 48}, [&](std::string_view part) { text += part; });
  progress.step(
      "\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4/\xC3\xBC"
      "bung-abc.png",
      2, 2);
  CHECK(text ==
        "\r\033[K...\xC3\xBC"
        "bung-abc.png [########################] 2/2");
}

TEST_CASE("a log gets everything, with the time") {
  std::string log;
  render_two({Amount::Quiet, false, false, 80}, &log);
  for (const char* line : {" on the CPU\n", " a.png: sample\n", " a.png: step 1 of 2\n", " [1/2] a.png: ok, 1.2 s\n"})
    CHECK_MESSAGE(log.find(line) != std::string::npos, line);
}

TEST_SUITE_END();
