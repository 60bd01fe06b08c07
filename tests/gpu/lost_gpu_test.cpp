#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/render/render.h"
#include "core/devices.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "tests/gpu/trap.h"
#include "tests/rendering.h"
#include "tests/small_jobs.h"
#include "tests/watchdog.h"

// A GPU that is really lost, by a kernel that traps, in each phase of a job: the report is written, the exit code is 4,
// and the program ends by itself. A process that has lost a GPU cannot have it back, so that each case is a process:
// this binary, told by MGPU_TRAP="PLACE NUMBER WHERE" (core/fault_point.h) to run the test case "a child ..." alone.

using namespace mgpu;
using test::Jobs;

namespace {

/// Where a job runs: alone on the GPU, pass by pass; with followers, the CPU computing a part; streaming; its
/// autoencoder on two devices.
struct Where {
  const char* name;
  const char* gpu_ids;
  const char* more;
};
const Where kWheres[] = {
    {"alone", "0", ""},
    {"streaming", "0", "allocation: {unet: \"cuda:0,50%;cpu,50%\"}\n"},
    {"shared", "0, cpu",
     "mode: shard\nspeed: {cuda:0: 1.0, cpu: 1.0}\nallocation: {unet: \"cuda:0,50%;cpu,50%\", vae: cuda:0}\n"},
    {"two", "0, 1",
     "mode: shard\nspeed: {cuda:0: 1.0, cuda:1: 1.0}\nallocation: {unet: \"cuda:0,50%;cuda:1,50%\", vae: [cuda:0, "
     "cuda:1]}\n"},
};

struct Place {
  const char* name;
  int number;  ///< of the times that it is passed, from 0
};
const Place kPlaces[] = {{"encode", 0},    {"encode", 1},   {"load", 0},        {"begin run", 0},
                         {"stage", 0},     {"stage", 3},    {"finish", 0},      {"finish", 2},
                         {"hand over", 1}, {"follow", 1},   {"autoencoder", 0}, {"autoencoder", 1},
                         {"copy", 3},      {"exchange", 5}, {"sample", 1},      {"to the writer", 0}};

/// Runs this binary's child case so told. Returns how waitpid() says that it ended.
int run_child(const Place& place, const Where& where) {
  const std::string setting = fmt::format("{} {} {}", place.number, where.name, place.name);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("MGPU_TRAP", setting.c_str(), 1);
    ::execl("/proc/self/exe", "mgpu-gpu-tests", "--no-intro", "--no-skip", "--test-case=a child that loses its GPU*",
            static_cast<char*>(nullptr));
    std::_Exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_SUITE_BEGIN("lost_gpu");

TEST_CASE("a GPU that is lost in any phase ends the job with a report and exit code 4") {
  const std::size_t gpus = survey_devices().gpus.size();
  REQUIRE(gpus > 0);
  for (const Where& where : kWheres) {
    if (where.name == std::string("two") && gpus < 2) {
      MESSAGE("this machine has one GPU");
      continue;
    }
    for (const Place& place : kPlaces) {
      CAPTURE(where.name);
      CAPTURE(place.name);
      CAPTURE(place.number);
      const int status = run_child(place, where);
      CHECK_MESSAGE(WIFEXITED(status), "ended by signal ", WTERMSIG(status));
      CHECK(WEXITSTATUS(status) == 0);
    }
  }
}

TEST_CASE("a child that loses its GPU" * doctest::skip()) {
  const char* setting = std::getenv("MGPU_TRAP");
  if (!setting) return;  // --no-skip over everything
  test::Watchdog watchdog(std::string("a lost GPU, ") + setting, 120);
  const std::string text = setting;
  const std::size_t first = text.find(' '), second = text.find(' ', first + 1);
  const int number = std::stoi(text);
  const std::string where_name = text.substr(first + 1, second - first - 1), place = text.substr(second + 1);
  const Where& where = *std::ranges::find_if(kWheres, [&](const Where& w) { return w.name == where_name; });
  const Jobs jobs;
  std::atomic<int> passed = 0;
  fault_hook = [&](std::string_view now) {
    if (now == place && passed++ == number) test::lose_gpu();
  };
  const RenderResult result = test::render_all({jobs.job_on(where.gpu_ids, "first", 3, where.more, 64)});
  fault_hook = nullptr;
  REQUIRE(result.reports.size() == 1);
  const Report& report = result.reports.front();
  const auto ok = std::ranges::count(report.images, "ok", &ImageReport::status);
  if (passed <= number) {  // this placement has no such place
    CHECK(result.code == Exit::Ok);
    return;
  }
  // A trap behind the last picture may be nobody's any more.
  CHECK((result.code == Exit::Device || ok == 3));
  CHECK(nlohmann::json::parse(test::read_all(jobs.path("first/report.json")))["status"] == report.status);
  for (std::size_t i = 0; i < report.images.size(); ++i) {
    const ImageReport& image = report.images[i];
    CHECK(std::filesystem::exists(jobs.picture("first", i)) == (image.status == "ok"));
    if (image.status != "ok") CHECK_MESSAGE(image.error.find("cuda:") != std::string::npos, image.error);
  }
}

TEST_SUITE_END();
