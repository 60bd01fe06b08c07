#include "core/error.h"

#include <doctest/doctest.h>

using namespace mgpu;

TEST_SUITE_BEGIN("error");

TEST_CASE("an error names place, fault and remedy") {
  Error e(Exit::Usage, Mark{"job.yaml", 7, 3}, "unknown key \"stpes\"", "did you mean \"steps\"?");
  CHECK(std::string(e.what()) == "job.yaml:7:3: unknown key \"stpes\"\n  did you mean \"steps\"?");
  CHECK(std::string(Error(Exit::Usage, Mark{"a.safetensors"}, "is short").what()) == "a.safetensors: is short");
  CHECK(std::string(Error(Exit::Usage, Mark{}, "no GPU").what()) == "no GPU");
}

TEST_CASE("a failed check prints its operands") {
  CHECK_THROWS_WITH_AS(MGPU_CHECK_EQ(2, 3), doctest::Contains("2 != 3"), std::logic_error);
}

TEST_SUITE_END();
