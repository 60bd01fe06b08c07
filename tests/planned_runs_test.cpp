#include "shard/planned_runs.h"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

using namespace mgpu;

namespace {

/// Layers first..last of `component`.
Assignment layers(const char* component, int first, int last, bool streamed = false) {
  return {component, "layer", first, last, last - first + 1, 0, streamed, {}};
}

Plan plan_of(std::vector<std::vector<Assignment>> assignments) {
  Plan out;
  for (auto& own : assignments) {
    out.devices.emplace_back();
    out.devices.back().assignments = std::move(own);
  }
  return out;
}

/// "0:110 1:001": the devices and what they hold; streamed blocks are an s.
std::string described(const std::vector<PlannedRun>& runs) {
  std::vector<std::string> out;
  for (const PlannedRun& run : runs) {
    std::string held;
    for (int i = 0; i < run.held.count(); ++i) held += !run.held.has(i) ? '0' : run.held.streams(i) ? 's' : '1';
    out.push_back(fmt::format("{}:{}", run.device, held));
  }
  return fmt::format("{}", fmt::join(out, " "));
}

}  // namespace

TEST_SUITE_BEGIN("planned_runs");

TEST_CASE("a component's runs stand in the order of its blocks, whatever the order of the devices") {
  const Plan plan = plan_of({{layers("clip_l", 0, 1), layers("t5xxl", 2, 3)}, {layers("t5xxl", 0, 1)}});
  CHECK(described(planned_runs(plan, "t5xxl", 4)) == "1:1100 0:0011");
  CHECK(described(planned_runs(plan, "clip_l", 2)) == "0:11");
}

TEST_CASE("neighbouring assignments of a device are one run, some of its blocks streamed") {
  const Plan plan = plan_of({{layers("t5xxl", 0, 0), layers("t5xxl", 1, 1, true), layers("t5xxl", 2, 2)},
                             {layers("t5xxl", 3, 3), layers("t5xxl", 4, 4, true)}});
  CHECK(described(planned_runs(plan, "t5xxl", 5)) == "0:1s100 1:0001s");
}

TEST_CASE("a block that the plan leaves out is our own mistake") {
  CHECK_THROWS_WITH_AS(planned_runs(plan_of({{layers("t5xxl", 0, 1)}}), "t5xxl", 3),
                       doctest::Contains("the plan leaves a block of t5xxl out"), std::logic_error);
}

TEST_SUITE_END();
