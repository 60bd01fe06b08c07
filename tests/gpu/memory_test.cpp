#include "core/memory.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <vector>

#include "cli/failure.h"
#include "core/devices.h"
#include "core/driver_probe.h"
#include "core/own_memory.h"
#include "shard/device_error.h"
#include "tests/gpu/child.h"

using namespace mgpu;

TEST_SUITE_BEGIN("memory");

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kGiB = std::uint64_t{1} << 30;
const DeviceId kGpu = DeviceId::cuda(0);

at::Tensor on_gpu(at::IntArrayRef shape, at::ScalarType type = at::kByte) {
  return at::ones(shape, at::TensorOptions(type).device(torch_device(kGpu)));
}

/// Plain allocations until the GPU has no 2 MiB left; freed at the end.
class FullGpu {
 public:
  FullGpu() {
    for (std::size_t size = kGiB; size >= 2 * kMiB; size /= 8) {
      void* memory = nullptr;
      while (cudaMalloc(&memory, size) == cudaSuccess) held_.push_back(memory);
    }
    cudaGetLastError();
  }
  ~FullGpu() {
    for (void* memory : held_) cudaFree(memory);
  }
  FullGpu(const FullGpu&) = delete;
  FullGpu& operator=(const FullGpu&) = delete;

 private:
  std::vector<void*> held_;
};

/// What a picture's failure would be that comes of this work.
template <class Work>
Failure failure_in(Work work) {
  try {
    on_device(kGpu, work);
  } catch (...) {
    return failure_of(std::current_exception(), kGpu);
  }
  return {Exit::Ok, "nothing failed", {}};
}

}  // namespace

TEST_CASE("in a process of its own: the survey opens no context" * doctest::skip()) {
  const DeviceSurvey survey = survey_devices();
  REQUIRE_FALSE(survey.gpus.empty());
  for (const GpuInfo& gpu : survey.gpus) {
    CAPTURE(gpu.id.to_string());
    CHECK(gpu.fault == "");
    CHECK(gpu.free_is_known);
    CHECK(gpu.free_bytes > 0);
    CHECK(gpu.free_bytes <= gpu.total_bytes);
    CHECK_FALSE(c10::cuda::hasPrimaryContext(static_cast<c10::DeviceIndex>(gpu.id.index)));
  }
  // Work on one GPU opens none on the others.
  on_gpu({1});
  bytes_in_use(kGpu);
  for (const GpuInfo& gpu : survey.gpus)
    CHECK(c10::cuda::hasPrimaryContext(static_cast<c10::DeviceIndex>(gpu.id.index)) == (gpu.id == kGpu));
}

TEST_CASE("the survey opens no context, and work on one GPU none on the others") {
  test::Child child("in a process of its own: the survey opens no context");
  const int code = child.finish();
  CAPTURE(child.text);
  CHECK(code == 0);
}

TEST_CASE("in a process of its own: 8 GiB are held" * doctest::skip()) {
  const at::Tensor held = on_gpu({static_cast<std::int64_t>(8 * kGiB)});
  synchronize(torch_device(kGpu));
  test::wait_for_parent("holding");
}

TEST_CASE("another process on the GPU is not counted as ours, and what it holds is not free") {
  const std::uint64_t free_before = survey_devices().gpus.front().free_bytes;
  const at::Tensor own = on_gpu({static_cast<std::int64_t>(kGiB)});
  synchronize(torch_device(kGpu));
  reset_peak_bytes(kGpu);
  const std::uint64_t before = bytes_in_use(kGpu);
  CHECK(before > kGiB);
  CHECK(before < 4 * kGiB);
  test::Child other("in a process of its own: 8 GiB are held");
  const std::string said = other.read_to("holding");
  CAPTURE(said);
  REQUIRE(said.find("holding") != std::string::npos);
  CHECK(bytes_in_use(kGpu) < before + kGiB);
  CHECK(peak_bytes(kGpu) < before + kGiB);
  CHECK(survey_devices().gpus.front().free_bytes + 8 * kGiB < free_before + kGiB);
  CHECK(other.finish() == 0);
  CHECK(bytes_in_use(kGpu) > before - kGiB / 2);
}

TEST_CASE("what the driver takes is measured, and covers what jobs load") {
  const std::uint64_t counted = probe_driver_bytes(kGpu, true);
  MESSAGE("counted for the driver: " << counted / kMiB << " MiB, in use: " << driver_bytes(kGpu) / kMiB << " MiB");
  CHECK(counted > 100 * kMiB);
  CHECK(counted < 4 * kGiB);
  CHECK(driver_bytes(kGpu) <= counted);
  CHECK(driver_bytes(DeviceId::cpu()) == 0);
}

TEST_CASE("a limit is kept to, and taken away") {
  release_cached(kGpu);
  limit_allocations(kGpu, 256 * kMiB);
  const Failure refused = failure_in([] { on_gpu({static_cast<std::int64_t>(kGiB)}); });
  CHECK(refused.code == Exit::ImageFailed);
  CHECK(refused.out_of_memory == kGpu);
  unlimit_allocations(kGpu);
  CHECK(on_gpu({static_cast<std::int64_t>(kGiB)}).defined());
}

TEST_CASE("in a process of its own: a full GPU" * doctest::skip()) {
  const at::Tensor x = on_gpu({4096, 4096}, at::kBFloat16), image = on_gpu({1, 64, 256, 256}, at::kHalf),
                   weight = on_gpu({64, 64, 3, 3}, at::kHalf);
  at::Tensor product = at::empty_like(x);
  on_gpu(
      {static_cast<std::int64_t>(512 * kMiB)});  // and freed: LibTorch keeps it for tensors, libraries get none of it
  {
    const FullGpu full;
    for (int i = 0; i < 2; ++i) {
      const Failure matrix = failure_in([&] { at::mm_out(product, x, x); });
      MESSAGE("a product without a handle: " << matrix.why);
      CHECK(matrix.code != Exit::Device);
      const Failure convolution = failure_in([&] { at::conv2d(image, weight); });
      MESSAGE("a convolution: " << convolution.why);
      CHECK(convolution.code != Exit::Device);
      CHECK(failure_in([] { on_gpu({static_cast<std::int64_t>(kGiB)}); }).out_of_memory == kGpu);
    }
  }
  // Nothing is lost, and no error is left over for the next kernel.
  at::mm_out(product, x, x);
  CHECK(product.max().item<float>() == 4096.0F);
  CHECK(at::conv2d(image, weight).max().item<float>() == 576.0F);
}

TEST_CASE("a GPU without room for the libraries' own is out of memory, not lost") {
  test::Child child("in a process of its own: a full GPU");
  const int code = child.finish();
  MESSAGE(child.text);
  CHECK(code == 0);
}

TEST_SUITE_END();
