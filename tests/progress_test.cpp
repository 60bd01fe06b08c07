#include "cli/progress.h"

#include <doctest/doctest.h>

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
