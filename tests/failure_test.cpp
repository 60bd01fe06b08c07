#include "cli/failure.h"

#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "cli/files/write_file.h"
#include "core/host_memory.h"
#include "core/mapped_file.h"

using namespace mgpu;

namespace {

template <class Thrown>
Failure failure(const Thrown& thrown, const DeviceId& device = DeviceId::cuda(1)) {
  return failure_of(std::make_exception_ptr(thrown), device);
}

c10::SourceLocation here() {
  return {"", "", 0};
}

}  // namespace

TEST_SUITE_BEGIN("failure");

TEST_CASE("an error of ours speaks for itself") {
  const Failure f = failure(Error(Exit::ImageFailed, Mark{"a.png"}, "cannot be written", "free some space"));
  CHECK(f.code == Exit::ImageFailed);
  CHECK(f.why == "a.png: cannot be written\n  free some space");
}

TEST_CASE(
    "a full disk may fail the next picture, a file that changed will, and one that is too large says nothing of it") {
  using Repeats = Failure::Repeats;
  const Failure full = failure(WriteError("a.png", ENOSPC));
  CHECK((full.code == Exit::ImageFailed && full.repeats == Repeats::Perhaps));
  CHECK(full.why == "a.png: cannot be written: No space left on device\n  free some space and run again with --resume");
  CHECK(failure(WriteError("a.png", EFBIG)).repeats == Repeats::No);
  const Failure changed = failure(FileChanged("m.safetensors", "was written to"));
  CHECK((changed.code == Exit::ImageFailed && changed.repeats == Repeats::Surely));
  CHECK(changed.why.starts_with("m.safetensors: was written to while the job used it\n"));
}

TEST_CASE("anything may be thrown") {
  const Failure f = failure(42);
  CHECK(f.code == Exit::ImageFailed);
  CHECK(f.why ==
        "something failed that does not say what it is\n  this should not happen: please report it with the job");
}

TEST_CASE("threads that the system does not start") {
  const Failure f = failure(std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again)));
  CHECK(f.code == Exit::ImageFailed);
  CHECK(f.why == "the system starts no more threads for this process\n  raise ulimit -u, or the cgroup's pids.max");
}

TEST_CASE("a device out of memory fails the picture, not the device") {
  const Failure f = failure(c10::OutOfMemoryError(here(), "CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"));
  CHECK(f.code == Exit::ImageFailed);
  CHECK(f.why ==
        "out of memory on cuda:1: CUDA out of memory. Tried to allocate 2.00 GiB.\n  a smaller picture needs less");
}

TEST_CASE("the device that ran out is named, not the one whose work failed") {
  const auto why = [](const char* text) { return failure(c10::OutOfMemoryError(here(), text), DeviceId::cuda(0)).why; };
  const std::string begin = "CUDA out of memory. Tried to allocate 2.00 GiB";
  CHECK(why((begin + ". GPU 3 has a total capacity of 7.79 GiB of which 1.0 GiB is free.\nmore").c_str()) ==
        "out of memory on cuda:3: " + begin +
            ". GPU 3 has a total capacity of 7.79 GiB of which 1.0 GiB is free.\n  a smaller picture needs less");
  CHECK(why((begin + ". GPU x").c_str()) ==
        "out of memory on cuda:0: " + begin + ". GPU x\n  a smaller picture needs less");
  const Failure host = failure(
      HostOutOfMemory(DeviceId::cpu(1), "tried to allocate 2.0 MB, with 3.0 MB of 4.0 MB in use"), DeviceId::cpu(0));
  CHECK(host.code == Exit::ImageFailed);
  CHECK(host.why ==
        "out of memory on cpu:1: tried to allocate 2.0 MB, with 3.0 MB of 4.0 MB in use\n  a smaller "
        "picture needs less, and a larger vram_limit gives it more");
}

TEST_CASE("main memory used up, as LibTorch and as C++ say it") {
  const Failure torch =
      failure(c10::Error(here(), "DefaultCPUAllocator: can't allocate memory: 9 bytes"), DeviceId::cpu());
  CHECK(torch.code == Exit::ImageFailed);
  CHECK(torch.why ==
        "out of memory on cpu: DefaultCPUAllocator: can't allocate memory: 9 bytes\n  a smaller picture needs less");
  const Failure plain = failure(std::bad_alloc());
  CHECK(plain.code == Exit::ImageFailed);
  CHECK(plain.why == "out of memory on cpu: main memory is used up\n  a smaller picture needs less");
}

TEST_CASE("another failure of a GPU is a lost device, of the CPU our own mistake") {
  const c10::Error error(here(), "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be");
  CHECK(failure(error).code == Exit::Device);
  CHECK(failure(error).why == "cuda:1 failed: CUDA error: an illegal memory access was encountered");
  const Failure own = failure(c10::Error(here(), "shapes differ"), DeviceId::cpu());
  CHECK(own.code == Exit::ImageFailed);
  CHECK(own.why == "shapes differ\n  this should not happen: please report it with the job");
  CHECK(failure(std::logic_error("internal error at a.cpp:1")).why ==
        "internal error at a.cpp:1\n  this should not happen: please report it with the job");
}

TEST_CASE("memory that the driver or a library was refused fails the picture, not the device") {
  const auto is_out_of_memory = [](const auto& thrown) {
    const Failure f = failure(thrown);
    if (f.out_of_memory) CHECK(f.why.starts_with("out of memory on cuda:1: "));
    if (f.out_of_memory) CHECK(f.code == Exit::ImageFailed);
    return f.out_of_memory.has_value();
  };
  for (const char* text : {
           "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
           "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtMatmul(...)`",
           "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
           "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
           "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
           "GET was unable to find an engine to execute this computation",
           "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
           "CUDA driver error: out of memory",
       }) {
    CAPTURE(text);
    CHECK(is_out_of_memory(c10::Error(here(), text)));
  }
  CHECK(is_out_of_memory(c10::AcceleratorError(here(), cudaErrorMemoryAllocation, "CUDA error: in other words")));
  CHECK_FALSE(is_out_of_memory(c10::AcceleratorError(here(), cudaErrorECCUncorrectable, "CUDA error: ECC")));
}

TEST_CASE("what libraries say of a full GPU and of a lost one alike is decided by what is free") {
  const auto code = [](const char* text, std::optional<std::uint64_t> free_bytes) {
    return failure_of(std::make_exception_ptr(c10::Error(here(), text)), DeviceId::cuda(1),
                      [&](const DeviceId& gpu) {
                        CHECK(gpu == DeviceId::cuda(1));
                        return free_bytes;
                      })
        .code;
  };
  constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
  for (const char* text : {
           "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
           "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasLtMatmul(...)`",
           "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`",
           "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
           "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
           "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
       }) {
    CAPTURE(text);
    CHECK(code(text, 10 * kMiB) == Exit::ImageFailed);
    CHECK(code(text, 8000 * kMiB) == Exit::Device);
    CHECK(code(text, std::nullopt) == Exit::Device);
  }
  for (const char* text : {
           "CUDA error: an illegal memory access was encountered",
           "CUDA error: unspecified launch failure",
           "CUDA error: uncorrectable ECC error encountered",
           "CUDA error: unknown error",
           "CUDA error: the launch timed out and was terminated",
       }) {
    CAPTURE(text);
    CHECK(code(text, 10 * kMiB) == Exit::Device);
  }
}

TEST_CASE("the greater exit code takes precedence: signal, 4, 3, 1") {
  const Exit order[] = {Exit::Ok,     Exit::ImageFailed, Exit::Usage,     Exit::DoesNotFit,
                        Exit::Device, Exit::Interrupted, Exit::Terminated};
  CHECK(std::is_sorted(std::begin(order), std::end(order)));
}

TEST_SUITE_END();
