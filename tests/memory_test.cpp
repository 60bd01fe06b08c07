#include "core/memory.h"

#include <ATen/ATen.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CPUAllocator.h>
#include <doctest/doctest.h>

#include <barrier>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "core/host_memory.h"
#include "core/proc.h"
#include "core/weights.h"
#include "shard/worker.h"
#include "tests/byte_sizes.h"
#include "tests/tensor_writer.h"

using namespace mgpu;

namespace {

using test::kMiB;

at::Tensor bytes(std::uint64_t count) {
  return at::empty({static_cast<std::int64_t>(count)}, at::kByte);
}

/// A device of a test's own: accounts live as long as the process.
DeviceId fresh_device() {
  static int next = 500;
  return DeviceId::cpu(next++);
}

template <class Work>
std::string refusal(Work work) {
  try {
    work();
  } catch (const HostOutOfMemory& error) {
    return error.device().to_string() + ": " + error.what_without_backtrace();
  }
  return "nothing was refused";
}

}  // namespace

TEST_SUITE_BEGIN("memory");

TEST_CASE("what a thread allocates is booked with the device whose scope it is in, whoever frees it") {
  const DeviceId first = fresh_device(), second = fresh_device();
  const HostAccount &a = HostAccount::of(first), &b = HostAccount::of(second);
  CHECK(a.device() == first);
  const at::Tensor before = bytes(100);
  at::Tensor inner, outer;
  {
    const HostDeviceScope scope(first);
    outer = bytes(1000);
    {
      const HostDeviceScope nested(second);
      inner = bytes(30);
      CHECK(b.current() == 30);
    }
    {
      const HostDeviceScope gpu(DeviceId::cuda(0));
      CHECK(bytes(500).defined());
    }
    CHECK(a.current() == 1000);
    const at::Tensor more = bytes(4);
    CHECK(a.current() == 1004);
  }
  const at::Tensor after = bytes(100);
  CHECK(a.current() == 1000);
  CHECK(a.peak() == 1004);
  CHECK(b.peak() == 30);
  std::jthread([&] { outer.reset(); }).join();
  CHECK(a.current() == 0);
  inner = at::Tensor();
  CHECK(b.current() == 0);
  CHECK(bytes_in_use(first) == 0);
  CHECK(peak_bytes(first) == 1004);
  reset_peak_bytes(first);
  CHECK(peak_bytes(first) == 0);
}

TEST_CASE("a worker's tasks are its device's, in a thread of its own as in the caller's") {
  for (const Worker::Runs runs : {Worker::Runs::InThread, Worker::Runs::InCaller}) {
    const DeviceId device = fresh_device();
    Worker worker(device, runs);
    const at::Tensor made = worker.call([] { return bytes(77); });
    CHECK(bytes_in_use(device) == 77);
    const at::Tensor own = bytes(11);
    CHECK(bytes_in_use(device) == 77);
  }
}

TEST_CASE("an allocation that would pass the limit is refused, and books nothing") {
  const DeviceId device = fresh_device();
  HostAccount& account = HostAccount::of(device);
  limit_allocations(device, 3 * kMiB);
  const HostDeviceScope scope(device);
  const at::Tensor held = bytes(2 * kMiB);
  CHECK(refusal([] { bytes(kMiB + 1); }) ==
        device.to_string() + ": tried to allocate 1.0 MB, with 2.0 MB of 3.0 MB in use");
  CHECK(account.current() == 2 * kMiB);
  CHECK(account.peak() == 2 * kMiB);
  CHECK(bytes(kMiB).defined());  // to the byte
  CHECK(account.peak() == 3 * kMiB);
  CHECK_THROWS_AS(at::zeros({1}) + bytes(2 * kMiB), c10::OutOfMemoryError);  // inside an operation
  limit_allocations(device, kMiB);                                           // below what is held already
  CHECK(refusal([] { bytes(1); }) == device.to_string() + ": tried to allocate 1 byte, with 2.0 MB of 1.0 MB in use");
  unlimit_allocations(device);
  CHECK(bytes(kMiB).defined());
  CHECK(refusal([] { HostCharge(~std::uint64_t{0}); }).starts_with(device.to_string()));  // no overflow
  // What main memory itself refuses is not booked either.
  CHECK_THROWS_AS(bytes(std::uint64_t{1} << 60), c10::Error);
  CHECK(account.current() == 2 * kMiB);
}

TEST_CASE("blocks keep LibTorch's alignment, and its raw interface") {
  const DeviceId device = fresh_device();
  const HostDeviceScope scope(device);
  c10::Allocator& allocator = *c10::GetCPUAllocator();
  for (const std::size_t size : {1, 63, 64, 4096, 3 << 20}) {
    void* block = allocator.raw_allocate(size);
    CHECK(reinterpret_cast<std::uintptr_t>(block) % c10::gAlignment == 0);
    CHECK(bytes_in_use(device) == size);
    std::memset(block, 1, size);
    allocator.raw_deallocate(block);
    CHECK(bytes_in_use(device) == 0);
  }
  CHECK(allocator.raw_allocate(0) == nullptr);
  allocator.raw_deallocate(nullptr);
  const at::Tensor original = at::arange(10, at::kInt);
  const c10::DataPtr copy = allocator.clone(original.data_ptr(), original.nbytes());
  CHECK(std::memcmp(copy.get(), original.data_ptr(), original.nbytes()) == 0);
}

TEST_CASE("peaks are exact, however many threads allocate and free") {
  constexpr int kThreads = 8;
  const DeviceId device = fresh_device();
  std::barrier together(kThreads);
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      const HostDeviceScope scope(device);
      for (int i = 0; i < 200; ++i) {
        together.arrive_and_wait();
        const at::Tensor held = bytes(1000), more = bytes(1);
        together.arrive_and_wait();  // all of them hold theirs
      }
    });
  }
  threads.clear();
  CHECK(bytes_in_use(device) == 0);
  CHECK(peak_bytes(device) == 1001 * kThreads);
}

TEST_CASE("a limit holds, however many threads ask at once") {
  const DeviceId device = fresh_device();
  limit_allocations(device, 10);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        const HostDeviceScope scope(device);
        for (int i = 0; i < 500; ++i) {
          try {
            const HostCharge charge(4);
            std::this_thread::yield();
          } catch (const HostOutOfMemory&) {  // which of them get through is nobody's business
          }
        }
      });
    }
  }
  CHECK(bytes_in_use(device) == 0);
  CHECK(peak_bytes(device) <= 8);
}

TEST_CASE("mapped weights count while they, or views of them, live") {
  const test::Folder folder;
  const std::string path =
      folder.write("w.safetensors", test::safetensors({{"a.weight", DType::F32, {64, 16}, std::string(4096, '\0')},
                                                       {"half.weight", DType::F16, {8, 8}, std::string(128, '\0')}}));
  const DeviceId device = fresh_device();
  const HostDeviceScope scope(device);
  const Weights weights(TensorFile::open(path), "", at::kFloat, at::kCPU);
  {
    const Linear mapped = weights.linear("a");
    CHECK(bytes_in_use(device) == 4096);
    const Linear part = rows(mapped, 3, 5);
    const Linear widened = weights.linear("half");
    CHECK(bytes_in_use(device) == 4096 + 256);
    CHECK(peak_bytes(device) == 4096 + 256 + 128);  // as stored and as widened, for a moment
  }
  CHECK(bytes_in_use(device) == 0);
  limit_allocations(device, 4095);
  CHECK(refusal([&] { weights.get("a.weight"); }) ==
        device.to_string() + ": tried to allocate 4.0 KB, with 0 bytes of 4.0 KB in use");
  CHECK(bytes_in_use(device) == 0);
}

TEST_CASE("plain cpu is charged with the program besides, the same at any time") {
  const std::uint64_t program = program_bytes();
  CHECK(program > kMiB);
  const HostDeviceScope scope(DeviceId::cpu());
  const std::uint64_t before = bytes_in_use(DeviceId::cpu());
  CHECK(before >= program);
  const at::Tensor held = at::ones({static_cast<std::int64_t>(kMiB)}, at::kByte);
  CHECK(bytes_in_use(DeviceId::cpu()) == before + kMiB);
  CHECK(program_bytes() == program);
}

TEST_CASE("CUDA's segments grow in place, unless the user has settings of their own") {
  using Config = c10::CachingAllocator::AcceleratorAllocatorConfig;
  if (std::getenv("PYTORCH_CUDA_ALLOC_CONF") || std::getenv("PYTORCH_ALLOC_CONF")) return;
  for (const char* variable : {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"}) {
    c10::CachingAllocator::setAllocatorSettings("expandable_segments:False");
    setenv(variable, "max_split_size_mb:512", 1);
    prefer_expandable_segments();
    unsetenv(variable);
    CHECK_FALSE(Config::use_expandable_segments());
  }
  prefer_expandable_segments();
  CHECK(Config::use_expandable_segments());
}

TEST_SUITE_END();
