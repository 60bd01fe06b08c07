#include <c10/util/Exception.h>
#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/job/checks/checks.h"
#include "cli/plan/plan_job.h"
#include "cli/render/encoded_inputs.h"
#include "cli/render/render.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/host_memory.h"
#include "shard/make_plan.h"
#include "shard/needs.h"
#include "tests/rendering.h"
#include "tests/small_jobs.h"
#include "tests/testing.h"

// A failure at every place where work passes from one owner to the next: nothing hangs, nothing else is lost.

using namespace mgpu;
using test::bytes_of;
using test::Jobs;
using test::read_all;
using test::render_all;

namespace {

constexpr int kPictures = 3;

enum class Kind { Plain, OutOfMemory, Lost };

[[noreturn]] void fail_as(Kind kind) {
  switch (kind) {
    case Kind::OutOfMemory:
      throw c10::OutOfMemoryError({"", "", 0}, "CUDA out of memory. Tried to allocate 2.00 GiB.");
    case Kind::Lost:
      throw Error(Exit::Device, {}, "the device is lost");
    default:
      throw std::runtime_error("injected");
  }
}

/// Counts how often each place is passed, and fails at those times that it is told to, while it lives.
class Faults {
 public:
  using Where = std::function<bool(std::string_view place, int number)>;  ///< number: of the place, from 1

  explicit Faults(Kind kind = Kind::Plain, Where where = {}) {
    fault_hook = [this, kind, where = std::move(where)](std::string_view place) {
      {
        const std::lock_guard lock(mutex_);
        const int number = ++times_[std::string(place)];
        if (!where || !where(place, number)) return;
        failed_at_ = place;
      }
      fail_as(kind);
    };
  }
  ~Faults() { fault_hook = nullptr; }
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;

  const std::map<std::string, int>& times() const { return times_; }
  const std::string& failed_at() const { return failed_at_; }

 private:
  std::mutex mutex_;
  std::map<std::string, int> times_;
  std::string failed_at_;
};

/// The device that has the first block of the diffusion model, where passes begin.
const DeviceReport& home_of(const Report& report) {
  return *std::ranges::find_if(report.devices, [](const DeviceReport& device) {
    return std::ranges::any_of(device.assignments,
                               [](const Assignment& a) { return a.kind == "down" && a.first == 0; });
  });
}

/// The pictures that the manifest has a line of, in its order.
std::vector<std::string> manifest_of(const Jobs& jobs, const std::string& job) {
  std::vector<std::string> out;
  std::istringstream lines(read_all(jobs.path(job + "/manifest.jsonl")));
  for (std::string line; std::getline(lines, line);) out.push_back(nlohmann::json::parse(line)["file"]);
  return out;
}

/// A report tells of whole pictures and of reasons; the folder and the manifest agree with it.
void check_consistent(const Jobs& jobs, const Report& report, const std::string& job,
                      const std::vector<std::string>& expected) {
  std::vector<std::string> written;
  for (std::size_t i = 0; i < report.images.size(); ++i) {
    const ImageReport& image = report.images[i];
    CAPTURE(i);
    CAPTURE(image.error);
    if (image.status == "ok") {
      CHECK(read_all(jobs.picture(job, i)) == expected[i]);
      CHECK(image.error.empty());
      written.push_back(image.file);
    } else {
      CHECK(image.status == "failed");
      CHECK_FALSE(image.error.empty());
      CHECK_FALSE(std::filesystem::exists(jobs.picture(job, i)));
    }
    CHECK_FALSE(std::filesystem::exists(jobs.picture(job, i) + ".tmp"));
  }
  // In the job's order, but for what was tried again once the others were done.
  std::vector<std::string> manifest = manifest_of(jobs, job);
  if (report.mode_reason.find("again") != std::string::npos) std::ranges::sort(manifest);
  CHECK(manifest == written);
}

std::size_t failed_of(const Report& report) {
  return static_cast<std::size_t>(std::ranges::count(report.images, "failed", &ImageReport::status));
}

/// In the writers' threads nothing is tried again.
bool is_written(const std::string& place) {
  return place == "compress" || place == "write" || place == "manifest";
}

/// Renders two jobs of which the first fails where and when it is told to.
void check_failure(const Jobs& jobs, int devices, Kind kind, const std::string& place, int number,
                   const std::vector<std::string>& expected) {
  const Job first = jobs.job("first", devices, kPictures), second = jobs.job("second", devices, 1);
  jobs.clear("first");
  jobs.clear("second");
  const Faults faults(kind, [&](std::string_view at, int times) { return at == place && times == number; });
  const RenderResult result = render_all({first, second});
  CAPTURE(place);
  CAPTURE(number);
  REQUIRE(result.reports.size() == 2);
  const Report& report = result.reports[0];
  REQUIRE(report.images.size() == kPictures);
  if (place == "post") {  // whoever had a task to post may have found another way
    check_consistent(jobs, report, "first", expected);
    CHECK((result.code == Exit::Ok) == (failed_of(report) + failed_of(result.reports[1]) == 0));
    return;
  }
  const bool retried = kind == Kind::OutOfMemory && !is_written(place);
  CHECK(faults.failed_at() == place);
  CHECK(result.code == (kind == Kind::Lost ? Exit::Device : retried ? Exit::Ok : Exit::ImageFailed));
  if (place != "manifest") check_consistent(jobs, report, "first", expected);
  const bool none_failed = retried || place == "manifest";
  CHECK((failed_of(report) == 0) == none_failed);
  const bool is_coding =
      place == "rank" || place == "to a rank";  // a picture is decoded another way, which a note says
  CHECK((report.mode_reason.find("out of memory") != std::string::npos) == (retried && !is_coding));
  CHECK(result.reports[1].status == "ok");
  CHECK(read_all(jobs.picture("second", 0)) == expected[0]);
}

/// Fails at every place: the first time and once in the middle; where memory lacks or a device is lost, in the middle.
void check_every_place(const Jobs& jobs, int devices, Kind kind, const std::vector<std::string>& expected) {
  std::map<std::string, int> times;
  {
    jobs.clear("first");
    const Faults none;
    CHECK(render_all({jobs.job("first", devices, kPictures)}).code == Exit::Ok);
    times = none.times();
  }
  REQUIRE(times.size() > 15);
  for (const auto& [place, most] : times) {
    if (place == "post" && kind != Kind::Plain) continue;  // lack of memory for a task, a plain bad_alloc
    const int middle = most / 2 + 1;
    check_failure(jobs, devices, kind, place, middle, expected);
    if (kind == Kind::Plain && middle > 1) check_failure(jobs, devices, kind, place, 1, expected);
  }
}

void check_every_kind(int devices) {
  const Jobs jobs;
  REQUIRE(render_all({jobs.job("alone", 1, kPictures)}).code == Exit::Ok);
  const std::vector<std::string> expected = bytes_of(jobs, "alone", kPictures);
  for (const Kind kind : {Kind::Plain, Kind::OutOfMemory, Kind::Lost}) {
    CAPTURE(static_cast<int>(kind));
    check_every_place(jobs, devices, kind, expected);
  }
}

}  // namespace

TEST_SUITE_BEGIN("fault");

TEST_CASE("on one device, a failure at any hand-over leaves the other pictures whole, and the next job works") {
  check_every_kind(1);
}

TEST_CASE("on two devices, a failure at any hand-over leaves the other pictures whole, and the next job works") {
  check_every_kind(2);
}

TEST_CASE("on three devices, a failure at any hand-over leaves the other pictures whole, and the next job works") {
  check_every_kind(3);
}

TEST_CASE("out of memory again and again fails the pictures with a table of who held what, and the next job works") {
  const Jobs jobs;
  for (const bool automatic : {true, false}) {
    CAPTURE(automatic);
    const std::string mode = std::string("vram_limit: 1GB\nmode: ") + (automatic ? "auto\n" : "shard\n");
    jobs.clear("first");
    int stages = 0;
    {
      const Faults faults(Kind::OutOfMemory, [&](std::string_view place, int) { return place == "stage" && ++stages; });
      const Report report = render_all({jobs.job("first", 2, 2, mode)}).reports.front();
      CHECK(report.status == "failed");
      const std::string home = home_of(report).id;
      const auto reason = [&](const std::string& device) {
        return "; " + device + " ran out of memory, and what failed was rendered again, pass by pass" +
               (automatic ? ", then with less on " + device : "");
      };
      // Where passes begin in the first placement, which a smaller one may have moved.
      CHECK((report.mode_reason.ends_with(reason("cpu:0")) || report.mode_reason.ends_with(reason("cpu:1"))));
      for (const ImageReport& image : report.images) {
        CHECK(image.error.starts_with(
            "out of memory on " + home +
            ": CUDA out of memory. Tried to allocate 2.00 GiB.\n  a smaller picture needs less\n"
            "device   component            blocks    weights    limit |       peak encode   sample   decode  "
            "GiB\ncpu:0 "));
        CHECK(image.error.find("\ncpu:1 ") != std::string::npos);
        CHECK(image.error.find(" down 0-") != std::string::npos);
      }
    }
    CHECK(stages == 2 * (automatic ? 3 : 2));  // each picture at every attempt
    CHECK(render_all({jobs.job("first", 2, 2, mode)}).code == Exit::Ok);
  }
}

TEST_CASE("what ran out of memory again is rendered in a smaller placement, where the mode is auto") {
  const Jobs jobs;
  REQUIRE(render_all({jobs.job("alone", 1, 2)}).code == Exit::Ok);
  // Just what the device needs where passes begin, also once it has no more.
  std::string home;
  const auto most_of = [&](const Report& report) {
    return highest(std::ranges::find(report.devices, home, &DeviceReport::id)->predicted_peak_bytes);
  };
  std::uint64_t most = 0;
  const std::string apart = "allocation: {vae: cpu:1}\n";
  std::string limit = apart;
  for (const char* name : {"shared", "tight"}) {
    const Report report = render_all({jobs.job(name, 2, 2, limit)}).reports.front();
    REQUIRE(report.mode == "shard");
    home = home_of(report).id;
    most = most_of(report);
    limit = apart + "vram_limit: {" + home + ": " + std::to_string((most >> 20) + 1) + "MB}\n";
  }
  // The one device of the first placement loads once; then there is another placement.
  std::atomic<int> loads = 0;
  const Faults faults(Kind::OutOfMemory, [&](std::string_view place, int) {
    if (place == "load") ++loads;
    return place == "stage" && loads <= 1;
  });
  const RenderResult result = render_all({jobs.job("first", 2, 2, limit)});
  const Report& report = result.reports.front();
  CAPTURE(report.mode_reason);
  CAPTURE(limit);
  CHECK(result.code == Exit::Ok);
  CHECK(loads > 1);
  CHECK(report.mode_reason.ends_with("; " + home +
                                     " ran out of memory, and what failed was rendered again, pass by pass, then with "
                                     "less on " +
                                     home));
  CHECK(most_of(report) < most);
  CHECK(bytes_of(jobs, "first", 2) == bytes_of(jobs, "alone", 2));
}

TEST_CASE("what runs are told goes along to where a smaller placement begins") {
  const Jobs jobs;
  Job job = jobs.job("first", 1, 1);
  const JobModels models = open_job(job);
  DeviceRoom room;
  room.id = DeviceId::cpu(0);
  room.limit_bytes = std::uint64_t{64} << 30;
  Engine engine(models.set, {}, make_plan(component_needs(models.set, {}, {64, 64, 256}), {room}));
  VaeRunner vae_runner(engine, {});
  const std::vector<Picture> pictures = expand({&job, 1});
  const std::vector<const Picture*> own{&pictures.front()};
  EncodedInputs inputs(engine, vae_runner, TextualInversions(job.embedding_folders), own, [] {});
  const HostAccount &before = HostAccount::of(DeviceId::cpu(0)), &after = HostAccount::of(DeviceId::cpu(3));
  const std::uint64_t held_before = before.current(), held_after = after.current();
  inputs.move_to(DeviceId::cpu(3));
  const std::uint64_t bytes = inputs.run_of(pictures.front()).positive->context.nbytes();
  CHECK(bytes > 0);
  CHECK(after.current() == held_after + bytes);
  CHECK(before.current() == held_before - bytes);
}

TEST_CASE("a device that is lost ends its job; what was finished stays, and nothing more is begun") {
  const Jobs jobs;
  int stages = 0;
  const Faults faults(Kind::Lost, [&](std::string_view place, int) {
    if (place == "stage") ++stages;
    return place == "stage" && stages > 20;  // the first ten pictures have been sampled
  });
  const RenderResult result = render_all({jobs.job("first", 1, 20)});
  CHECK(result.code == Exit::Device);
  const Report& report = result.reports.front();
  CHECK(report.status == "partial");
  CHECK(report.images[0].status == "ok");
  CHECK(report.images.back().status == "failed");
  CHECK(report.images.back().error == "the device is lost");
  CHECK(stages == 21);
  CHECK(failed_of(report) == 10);
}

TEST_SUITE_END();
