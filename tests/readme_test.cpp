#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "samplers/sampler.h"

using namespace mgpu;

TEST_SUITE_BEGIN("readme");

TEST_CASE("samplers/README.md holds the registry's tables") {
  std::ifstream in(MGPU_SOURCE "/samplers/README.md");
  const std::string readme((std::istreambuf_iterator<char>(in)), {});
  REQUIRE_FALSE(readme.empty());
  CHECK_MESSAGE(readme.find(registry_table()) != std::string::npos, "put this into samplers/README.md:\n",
                registry_table());
}

TEST_SUITE_END();
