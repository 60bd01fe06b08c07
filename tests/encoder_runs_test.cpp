#include "shard/encoder_runs.h"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

using namespace mgpu;

namespace {

/// Layers first..last of `component`, streamed from a donor where one is named.
Assignment layers(const char* component, int first, int last, const char* donor = "") {
  return {component, "layer", first, last, last - first + 1, 0, *donor != 0, donor};
}

Plan plan_of(std::vector<std::vector<Assignment>> assignments) {
  Plan out;
  for (auto& own : assignments) {
    out.devices.emplace_back();
    out.devices.back().assignments = std::move(own);
  }
  return out;
}

/// "0:1s0(cpu) 1:001": the devices and what they hold, an s being streamed, and the donors of that.
std::string described(const std::vector<EncoderRun>& runs) {
  std::vector<std::string> out;
  for (const EncoderRun& run : runs) {
    std::string held;
    for (int i = 0; i < run.held.count(); ++i) held += !run.held.has(i) ? '0' : run.held.streams(i) ? 's' : '1';
    std::string donors;
    for (const auto& [block, donor] : run.donors) donors += fmt::format("({})", donor.to_string());
    out.push_back(fmt::format("{}:{}{}", run.device, held, donors));
  }
  return fmt::format("{}", fmt::join(out, " "));
}

}  // namespace

TEST_SUITE_BEGIN("encoder_runs");

TEST_CASE("a component's runs stand in the order of its blocks, whatever the order of the devices") {
  const Plan plan = plan_of({{layers("clip_l", 0, 1), layers("t5xxl", 2, 3)}, {layers("t5xxl", 0, 1)}});
  CHECK(described(encoder_runs(plan, "t5xxl", 4)) == "1:1100 0:0011");
  CHECK(described(encoder_runs(plan, "clip_l", 2)) == "0:11");
}

TEST_CASE("neighbouring assignments of a device are one run, some of its blocks streamed") {
  const Plan plan = plan_of({{layers("t5xxl", 0, 0), layers("t5xxl", 1, 1, "cpu"), layers("t5xxl", 2, 2)},
                             {layers("t5xxl", 3, 3), layers("t5xxl", 4, 4, "cuda:3")}});
  CHECK(described(encoder_runs(plan, "t5xxl", 5)) == "0:1s100(cpu) 1:0001s(cuda:3)");
}

TEST_CASE("a block that the plan leaves out is our own mistake") {
  CHECK_THROWS_WITH_AS(encoder_runs(plan_of({{layers("t5xxl", 0, 1)}}), "t5xxl", 3),
                       doctest::Contains("the plan has no layer 2 of the t5xxl"), std::logic_error);
}

TEST_SUITE_END();
