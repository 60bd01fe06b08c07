#include "cli/render/report.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace mgpu;

namespace {

Report example() {
  DeviceReport device;
  device.id = "cuda:0";
  device.name = "NVIDIA H200";
  device.limit_bytes = std::uint64_t(8) << 30;
  device.peak_bytes = {std::uint64_t(1) << 30, std::uint64_t(2) << 30, std::uint64_t(3) << 30};
  device.assignments = {{"unet", "double", 0, 18, 19, 5, false, ""}, {"unet", "single", 0, 37, 38, 6, true, "cpu"}};
  device.received_bytes = {{"cpu", std::uint64_t(3) << 29}, {"cuda:1", 1 << 20}};
  device.warnings = {"no block assigned"};
  return {"partial",
          "single",
          "one device",
          "job.yaml",
          "",
          {device},
          {{"a.png", "ok", 42, {1, 2, 3, 4}, "ff", ""}, {"b.png", "failed", 43, {}, "", "disk full"}}};
}

}  // namespace

TEST_SUITE_BEGIN("report");

TEST_CASE("the report has the keys that others rely on") {
  const auto json = nlohmann::ordered_json::parse(to_json(example()));
  const auto keys = [](const nlohmann::ordered_json& object) {
    std::string text;
    for (const auto& item : object.items()) text += item.key() + " ";
    return text;
  };
  CHECK(keys(json) == "version status mode mode_reason job kernel_table devices images ");
  const auto& device = json["devices"][0];
  CHECK(keys(device) ==
        "id name uuid total_bytes limit_bytes driver_bytes before_bytes after_load_bytes peak_bytes "
        "predicted_peak_bytes assignments "
        "blocks_executed_per_pass passes busy_seconds received_bytes warnings ");
  CHECK(device["received_bytes"] == nlohmann::ordered_json{{"cpu", 1610612736}, {"cuda:1", 1048576}});
  CHECK(keys(device["peak_bytes"]) == "encode sample decode ");
  CHECK(keys(device["assignments"][0]) == "component kind first last blocks bytes streamed from ");
  CHECK(keys(json["images"][0]) == "file status seed seconds sha256 error ");
  CHECK(keys(json["images"][0]["seconds"]) == "encode sample decode write ");
  CHECK(json["version"] == 1);
  CHECK(device["assignments"][1]["from"] == "cpu");
  CHECK(device["peak_bytes"]["decode"] == std::uint64_t(3) << 30);
}

TEST_CASE("text that is not UTF-8 does not break the report") {
  Report report = example();
  report.images[0].file = "\xff.png";
  CHECK(nlohmann::json::accept(to_json(report)));
}

TEST_CASE("the tables name every device, picture and fault") {
  const std::string text = to_tables(example());
  for (const char* part :
       {"job.yaml: partial, mode single: one device\n", "cuda:0   unet", "double 0-18", "single 0-37 38*",
        "         received 1.5 GB from cpu, 1.0 MB from cuda:1\n", "no block assigned", "a.png", "disk full"})
    CHECK_MESSAGE(text.find(part) != std::string::npos, part);
}

TEST_CASE("status of a run") {
  const auto status = [](std::vector<std::string> images, bool interrupted = false) {
    std::vector<ImageReport> reports;
    for (const std::string& image : images) reports.push_back({"a.png", image, 0, {}, "", ""});
    return status_of(reports, interrupted);
  };
  CHECK(status({"ok", "kept"}) == "ok");
  CHECK(status({}) == "ok");
  CHECK(status({"ok", "failed"}) == "partial");
  CHECK(status({"failed", "failed"}) == "failed");
  CHECK(status({"ok", "skipped"}, true) == "interrupted");
}

TEST_CASE("a pass that ran other blocks than planned is a warning") {
  DeviceReport device = example().devices[0];
  device.passes = 28;
  device.blocks_executed_per_pass = 57;
  CHECK(count_warnings(device).empty());
  device.blocks_executed_per_pass = 56.5;
  CHECK(count_warnings(device) == std::vector<std::string>{"the plan has 57 blocks a pass, and 56.5 were run"});
  device.passes = 0;
  CHECK(count_warnings(device).empty());
  device.assignments.clear();
  CHECK(count_warnings(device) == std::vector<std::string>{"no block assigned"});
}

TEST_CASE("a line of the manifest") {
  CHECK(manifest_line({"a.png", "ok", 42, {1.5, 2, 3, 4}, "ff", ""}, "job.yaml", 7) ==
        "{\"job\":\"job.yaml\",\"index\":7,\"file\":\"a.png\",\"status\":\"ok\",\"seed\":42,\"seconds\":{\"encode\":1."
        "5,\"sample\":2.0,"
        "\"decode\":3.0,\"write\":4.0},\"sha256\":\"ff\",\"error\":\"\"}\n");
}

TEST_SUITE_END();
