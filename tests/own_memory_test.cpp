#include "core/own_memory.h"

#include <doctest/doctest.h>

#include "tests/byte_sizes.h"

using namespace mgpu;

TEST_SUITE_BEGIN("own_memory");

namespace {

using test::kGiB;
using test::kMiB;

/// A GPU that others use too.
struct SharedGpu {
  std::uint64_t others = 0;
  std::uint64_t context = 0, reserved = 0;  ///< ours
  bool lists_processes = true;

  DriverShare::Source source() {
    return {[this]() -> std::optional<std::uint64_t> {
              if (!lists_processes || context == 0) return std::nullopt;
              return context + reserved;
            },
            [this] { return std::optional(others + context + reserved); }};
  }
  void start() {
    context = 500 * kMiB;
    reserved = 3 * kGiB;
  }
};

}  // namespace

TEST_CASE("what NVML lists of this process is its own, whatever others do") {
  SharedGpu gpu{.others = 8 * kGiB};
  const DriverShare share(gpu.source(), /*has_context=*/false);
  gpu.start();
  CHECK(share.bytes(gpu.reserved) == 500 * kMiB);
  gpu.others = 100 * kGiB;
  CHECK(share.bytes(gpu.reserved) == 500 * kMiB);
  CHECK(share.is_exact());
}

TEST_CASE("where NVML lists no processes, what was used before is others'") {
  SharedGpu gpu{.others = 8 * kGiB, .lists_processes = false};
  const DriverShare share(gpu.source(), /*has_context=*/false);
  gpu.start();
  CHECK(share.bytes(gpu.reserved) == 500 * kMiB);
  gpu.others = 100 * kGiB;  // a program that starts beside us looks like ours, within what is plausible
  CHECK(share.bytes(gpu.reserved) == DriverShare::kMostPlausible);
  gpu.others = 0;
  CHECK(share.bytes(gpu.reserved) == 0);
}

TEST_CASE("a process that bears our number before we have a context is somebody else") {
  SharedGpu gpu{.others = 8 * kGiB, .context = 2 * kGiB};  // of the other process
  const DriverShare share(gpu.source(), /*has_context=*/false);
  gpu.context += 300 * kMiB;
  CHECK(share.bytes(0) == 300 * kMiB);
  CHECK_FALSE(share.is_exact());
}

TEST_CASE("a context that is there already takes no more than is assumed of it") {
  SharedGpu gpu{.others = 8 * kGiB, .lists_processes = false};
  gpu.start();
  const DriverShare late(gpu.source(), /*has_context=*/true, gpu.reserved);
  CHECK(late.bytes(gpu.reserved) == kAssumedDriverBytes);
  gpu.reserved += kGiB;
  CHECK(late.bytes(gpu.reserved) == kAssumedDriverBytes);
  gpu.lists_processes = true;
  CHECK(late.bytes(gpu.reserved) == 500 * kMiB);
}

TEST_CASE("an answer that is smaller than what LibTorch reserved is none") {
  SharedGpu gpu;
  const DriverShare share(gpu.source(), /*has_context=*/false);
  gpu.start();
  gpu.context = 100 * kMiB;
  CHECK(share.bytes(gpu.reserved + 200 * kMiB) == 0);  // by difference, which does not go below nothing
}

TEST_SUITE_END();
