#include "core/links.h"

#include <doctest/doctest.h>

using namespace mgpu;

TEST_SUITE_BEGIN("links");

namespace {

const DeviceId cpu = DeviceId::cpu(), gpu0 = DeviceId::cuda(0), gpu1 = DeviceId::cuda(1);

}  // namespace

TEST_CASE("links as a matrix, from the rows to the columns") {
  const std::vector<Link> links = {
      {cpu, gpu0, false, 55.04e9, ""}, {gpu0, cpu, false, 50.2e9, ""},   {cpu, gpu1, false, 54.9e9, ""},
      {gpu1, cpu, false, 8e9, ""},     {gpu0, gpu1, true, 312.46e9, ""}, {gpu1, gpu0, true, 311e9, ""},
  };
  CHECK(describe_links(links) ==
        "copies, GB/s  to cuda:0  to cuda:1     to cpu\n"
        "from cuda:0           -      312.5       50.2\n"
        "from cuda:1       311.0          -        8.0\n"
        "from cpu           55.0       54.9          -\n");
}

TEST_CASE("what keeps links from being fast or measured stands below the matrix") {
  const std::vector<Link> links = {
      {cpu, gpu0, false, 25e9, ""},   {gpu0, cpu, false, 0.0, "out of memory"},
      {cpu, gpu1, false, 12.5e9, ""}, {gpu1, cpu, false, 13e9, ""},
      {gpu0, gpu1, false, 9.8e9, ""}, {gpu1, gpu0, false, 0.0, "the copy does not end"},
  };
  CHECK(describe_links(links) ==
        "copies, GB/s  to cuda:0  to cuda:1     to cpu\n"
        "from cuda:0           -       9.8*          ?\n"
        "from cuda:1           ?          -       13.0\n"
        "from cpu           25.0       12.5          -\n"
        "*: no peer access, so that copies pass through main memory\n"
        "cuda:0 to cpu was not measured: out of memory\n"
        "cuda:1 to cuda:0 was not measured: the copy does not end\n");
}

TEST_CASE("a link that changes bytes is marked, and said not to be used") {
  std::vector<Link> links = {
      {gpu0, gpu1, true, 50.26e9, ""},
      {gpu1, gpu0, true, 50e9, ""},
  };
  links[0].changes_bytes = true;
  CHECK(describe_links(links) ==
        "copies, GB/s  to cuda:0  to cuda:1\n"
        "from cuda:0           -      50.3!\n"
        "from cuda:1        50.0          -\n"
        "!: copies arrive with other bytes than were sent: jobs do not use these ways\n");
}

TEST_CASE("one GPU has its links with main memory, none has none") {
  CHECK(describe_links(std::vector<Link>{{cpu, gpu0, false, 55e9, ""}, {gpu0, cpu, false, 50e9, ""}}) ==
        "copies, GB/s  to cuda:0     to cpu\n"
        "from cuda:0           -       50.0\n"
        "from cpu           55.0          -\n");
  CHECK(describe_links({}) == "");
  CHECK(survey_links({}).empty());
}

TEST_CASE("a GPU that cannot be measured is said to be so, link by link") {
  const std::vector<DeviceId> none = {DeviceId::cuda(98), DeviceId::cuda(99)};
  const std::vector<Link> links = survey_links(none);
  REQUIRE(links.size() == 6);
  for (const Link& link : links) {
    CHECK_FALSE(link.fault.empty());
    CHECK(link.bytes_per_second == 0.0);
  }
  CHECK(links[4].from == none[0]);
  CHECK(links[4].to == none[1]);
}

TEST_SUITE_END();
