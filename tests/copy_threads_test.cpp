#include "core/copy_threads.h"

#include <doctest/doctest.h>

#include <numeric>
#include <random>

using namespace mgpu;

TEST_SUITE_BEGIN("copy_threads");

TEST_CASE("every byte arrives and none beside them is touched, whatever the size, copy after copy") {
  CopyThreads threads;
  std::mt19937_64 random(1);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{1} << 20, (std::size_t{1} << 20) + 1,
                                 (std::size_t{3} << 20) + 4097, std::size_t{1} << 19}) {
    std::vector<std::byte> from(size), to(size + 2, std::byte{0x5A});
    for (std::byte& byte : from) byte = static_cast<std::byte>(random());
    threads.copy(to.data() + 1, from);
    CHECK(std::equal(from.begin(), from.end(), to.begin() + 1));
    CHECK(to.front() == std::byte{0x5A});
    CHECK(to.back() == std::byte{0x5A});
  }
}

TEST_SUITE_END();
