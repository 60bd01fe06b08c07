#include "core/pinned.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include "core/device_notes.h"
#include "core/fault_point.h"

using namespace mgpu;

TEST_SUITE_BEGIN("pinned");

namespace {

constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;

/// Has a system lock no pages, and say so with an error of CUDA's.
class RefusedPages {
 public:
  explicit RefusedPages(int error = cudaErrorMemoryAllocation) {
    fault_hook = [this, error](std::string_view place) {
      if (place != "lock pages") return;
      ++asked_;
      throw c10::AcceleratorError({"", "", 0}, error, "CUDA error");
    };
  }
  ~RefusedPages() { fault_hook = nullptr; }
  int asked() const { return asked_; }

 private:
  int asked_ = 0;
};

}  // namespace

TEST_CASE("where the system locks no pages, copies go through ordinary memory, which a note says") {
  int gpu = 80;
  for (const int error : {cudaErrorMemoryAllocation, cudaErrorOperatingSystem, cudaErrorNotSupported}) {
    const RefusedPages refused(error);
    const DeviceId id = DeviceId::cuda(gpu++);
    for (const PinnedFrom from : {PinnedFrom::Driver, PinnedFrom::Cache}) {
      const at::Tensor bytes = staging_bytes(3 * kMebibyte + 1, from, id);
      CHECK(bytes.is_cpu());
      CHECK(bytes.numel() == 3 * kMebibyte + 1);
      CHECK(bytes.fill_(7).sum().item<std::int64_t>() == 7 * (3 * kMebibyte + 1));
    }
    CHECK(refused.asked() == 2);
    CHECK(device_notes(id) ==
          std::vector<std::string>{"the system locks no more pages of main memory: copies go through ordinary memory, "
                                   "more slowly; \"ulimit -l\" or the container's limit may allow more"});
  }
}

TEST_CASE("a GPU that is lost is not a refusal") {
  const RefusedPages refused(cudaErrorIllegalAddress);
  const DeviceId id = DeviceId::cuda(90);
  CHECK_THROWS_AS(staging_bytes(kMebibyte, PinnedFrom::Driver, id), c10::AcceleratorError);
  CHECK_THROWS_AS(staging_ring(4, kMebibyte, id), c10::AcceleratorError);
  CHECK(device_notes(id).empty());
}

TEST_CASE("a ring that is refused asks for less, then goes through two buffers of ordinary memory") {
  const RefusedPages refused;
  const DeviceId id = DeviceId::cuda(91);
  const std::vector<at::Tensor> ring = staging_ring(4, 32 * kMebibyte, id);
  CHECK(refused.asked() == 3);  // 32, 8 and 2 MiB
  REQUIRE(ring.size() == 2);
  for (const at::Tensor& buffer : ring) CHECK(buffer.numel() == 32 * kMebibyte);
  CHECK(device_notes(id).size() == 1);
  CHECK(staging_ring(1, 100, id).size() == 1);
}

TEST_SUITE_END();
