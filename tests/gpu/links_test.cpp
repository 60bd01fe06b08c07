#include "core/links.h"

#include <doctest/doctest.h>

using namespace mgpu;

TEST_SUITE_BEGIN("links");

TEST_CASE("every link of this machine's GPUs can be measured, more than once in a process") {
  std::vector<DeviceId> gpus;
  for (const GpuInfo& gpu : survey_devices().gpus) gpus.push_back(gpu.id);
  REQUIRE_FALSE(gpus.empty());
  for (int i = 0; i < 2; ++i) {
    const std::vector<Link> links = survey_links(gpus);
    CHECK(links.size() == gpus.size() * (gpus.size() + 1));
    for (const Link& link : links) {
      CAPTURE(link.from.to_string() + " to " + link.to.to_string());
      CHECK(link.fault == "");
      CHECK(link.bytes_per_second > 1e9);
    }
  }
}

TEST_SUITE_END();
