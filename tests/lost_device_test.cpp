#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "cli/render/render.h"
#include "core/allocation_limit.h"
#include "core/cancel.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/host_memory.h"
#include "tests/rendering.h"
#include "tests/small_jobs.h"
#include "tests/watchdog.h"

// A device that is lost, as a GPU is: from some moment on whatever asks it throws, in destructors too. And programs
// that are asked to end, at any moment.

using namespace mgpu;
using test::Jobs;
using test::read_all;
using test::render_all;

namespace {

/// Has every call of a device from number `first` on fail while it lives; counts them.
class LostFrom {
 public:
  explicit LostFrom(int first) {
    device_call_hook = [this, first] {
      if (count_++ >= first) throw Error(Exit::Device, {}, "the device is lost");
    };
  }
  ~LostFrom() { device_call_hook = nullptr; }
  LostFrom(const LostFrom&) = delete;
  LostFrom& operator=(const LostFrom&) = delete;

  int count() const { return count_; }

 private:
  std::atomic<int> count_ = 0;
};

/// Has the program asked to end at a fault point while it lives; counts the points.
class StopAt {
 public:
  explicit StopAt(int point) {
    fault_hook = [this, point](std::string_view place) {
      const int number = count_++;
      if (number == point) stop_signal = SIGTERM;
      if (number > point && is_stop_requested() && place == "stage") ++stages_after_;
    };
  }
  ~StopAt() {
    fault_hook = nullptr;
    stop_signal = 0;
  }
  StopAt(const StopAt&) = delete;
  StopAt& operator=(const StopAt&) = delete;

  int count() const { return count_; }
  int stages_after() const { return stages_after_; }

 private:
  std::atomic<int> count_ = 0, stages_after_ = 0;
};

std::size_t count_of(const Report& report, const std::string& status) {
  return static_cast<std::size_t>(std::ranges::count(report.images, status, &ImageReport::status));
}

/// What is said of pictures is so.
void check_files(const Jobs& jobs, const Report& report, const std::string& job,
                 const std::vector<std::string>& expected) {
  for (std::size_t i = 0; i < report.images.size(); ++i) {
    if (report.images[i].status == "ok")
      CHECK(read_all(jobs.picture(job, i)) == expected[i]);
    else
      CHECK_FALSE(std::filesystem::exists(jobs.picture(job, i)));
  }
  CHECK(nlohmann::json::parse(read_all(jobs.path(job + "/report.json")))["status"] == report.status);
}

/// Given, so that nothing is probed before the job begins.
std::string speeds_of(int devices) {
  std::string out = "speed: {cpu:0: 1.0";
  for (int i = 1; i < devices; ++i) out += fmt::format(", cpu:{}: 1.0", i);
  return out + "}\n";
}

}  // namespace

TEST_SUITE_BEGIN("lost_device");

TEST_CASE("a device that is lost at any call ends the job with a report, and the next job works") {
  test::Watchdog watchdog("a lost device");
  const Jobs jobs;
  REQUIRE(render_all({jobs.job("alone", 1, 3)}).code == Exit::Ok);
  const std::vector<std::string> expected = bytes_of(jobs, "alone", 3);
  for (int devices = 1; devices <= 3; ++devices) {
    const Job job = jobs.job("first", devices, 3, speeds_of(devices));
    int calls = 0;
    {
      jobs.clear("first");
      const LostFrom never(std::numeric_limits<int>::max());
      CHECK(render_all({job}).code == Exit::Ok);
      calls = never.count();
    }
    REQUIRE(calls > 20);
    const int step = std::max(1, calls / 60);
    for (int n = 0; n < calls; n += step) {
      CAPTURE(devices);
      CAPTURE(n);
      watchdog.sees(fmt::format("{} devices, lost from call {} of {}", devices, n, calls));
      jobs.clear("first");
      {
        const LostFrom lost(n);
        const RenderResult result = render_all({job});
        REQUIRE(result.reports.size() == 1);
        const Report& report = result.reports.front();
        // The last calls ask for what is no picture's: their destructors are deaf.
        CHECK((result.code == Exit::Device || count_of(report, "ok") == 3));
        check_files(jobs, report, "first", expected);
        for (const ImageReport& image : report.images)
          CHECK((image.status == "ok" || image.error == "the device is lost"));
      }
      if (n % (8 * step) == 0) CHECK(render_all({jobs.job("second", devices, 1)}).code == Exit::Ok);
    }
  }
}

TEST_CASE("a program that is asked to end at any moment ends: pictures are done or skipped, none has failed") {
  test::Watchdog watchdog("a program that is asked to end");
  const Jobs jobs;
  REQUIRE(render_all({jobs.job("alone", 1, 3)}).code == Exit::Ok);
  const std::vector<std::string> expected = bytes_of(jobs, "alone", 3);
  for (int devices = 1; devices <= 3; ++devices) {
    const Job first = jobs.job("first", devices, 3), second = jobs.job("second", devices, 1);
    int points = 0;
    {
      const StopAt never(std::numeric_limits<int>::max());
      jobs.clear("first");
      CHECK(render_all({first}).code == Exit::Ok);
      points = never.count();
    }
    const int step = std::max(1, points / 60);
    for (int n = 0; n < points; n += step) {
      CAPTURE(devices);
      CAPTURE(n);
      watchdog.sees(fmt::format("{} devices, asked to end at point {} of {}", devices, n, points));
      jobs.clear("first");
      jobs.clear("second");
      const StopAt stop(n);
      const RenderResult result = render_all({first, second});
      CHECK(result.code == Exit::Terminated);
      REQUIRE(result.reports.size() == 2);
      const Report& report = result.reports.front();
      CHECK(count_of(report, "failed") == 0);
      CHECK((report.status == "interrupted" || count_of(report, "ok") == 3));
      CHECK(count_of(result.reports.back(), "skipped") == 1);
      check_files(jobs, report, "first", expected);
      CHECK(stop.stages_after() <= devices);  // those that were just beginning
    }
  }
  CHECK(render_all({jobs.job("first", 2, 3)}).code == Exit::Ok);
}

TEST_CASE("a job's limits end with it, whatever a device is in the next one") {
  const Jobs jobs;
  HostAccount& account = HostAccount::of(DeviceId::cpu(1));
  {
    const AllocationLimit limit(DeviceId::cpu(1), 1000);
    CHECK(account.limit() == 1000);
  }
  CHECK(account.limit() == std::numeric_limits<std::uint64_t>::max());
  // What cpu:1 may compute with would not do for what it keeps in the second job.
  std::atomic<std::uint64_t> seen = 0;
  fault_hook = [&](std::string_view place) {
    if (place == "stage") seen = account.limit();
  };
  CHECK(render_all({jobs.job("first", 2, 1,
                             "vram_limit: {cpu:1: 300MB}\nmode: shard\nallocation: {unet: \"cpu:0,50%;cpu:1,50%\"}\n")})
            .code == Exit::Ok);
  CHECK(seen <= std::uint64_t{300} << 20);
  CHECK(render_all({jobs.job("second", 1, 1, "allocation: {unet: \"cpu:0,50%;cpu:1,50%\"}\n")}).code == Exit::Ok);
  CHECK(seen == std::numeric_limits<std::uint64_t>::max());
  fault_hook = nullptr;
}

TEST_SUITE_END();
