#include "core/pinned.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <future>

#include "core/copy_path.h"
#include "core/device_notes.h"
#include "core/devices.h"
#include "core/exchange.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "core/joint_work.h"
#include "core/memory.h"
#include "core/upload.h"
#include "shard/block_stream.h"

using namespace mgpu;

TEST_SUITE_BEGIN("pinned");

namespace {

const at::Device kGpu(at::kCUDA, 0);

/// Has the system lock no pages beyond so many buffers.
class FewPages {
 public:
  explicit FewPages(int buffers) : left_(buffers) {
    fault_hook = [this](std::string_view place) {
      if (place == "lock pages" && left_-- <= 0)
        throw c10::AcceleratorError({"", "", 0}, cudaErrorMemoryAllocation, "CUDA error: out of memory");
    };
  }
  ~FewPages() { fault_hook = nullptr; }

 private:
  int left_;
};

bool is_several_gpus() {
  if (survey_devices().gpus.size() > 1) return true;
  MESSAGE("this machine has one GPU");
  return false;
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// Three blocks that a donor keeps, brought to a GPU over and over.
void check_streaming(const DeviceId& donor) {
  std::vector<at::Tensor> weights;
  std::vector<BlockStream::Block> blocks;
  for (int i = 0; i < 3; ++i) weights.push_back(at::full({1 << 22}, i, at::kFloat));
  for (int i = 0; i < 3; ++i) blocks.push_back({i, {&weights[static_cast<std::size_t>(i)]}, donor});
  BlockStream stream(kGpu, std::move(blocks));
  for (int use = 0; use < 9; ++use) {
    const BlockStream::Use held(&stream, use % 3);
    CHECK(at::all(weights[static_cast<std::size_t>(use % 3)] == use % 3).item<bool>());
  }
}

}  // namespace

TEST_CASE("what is uploaded arrives, however many pages the system locks") {
  const at::Tensor values = at::arange(std::int64_t{40} << 20, at::kInt);  // 160 MiB: more than the ring holds
  for (const int buffers : {1000, 2, 1, 0}) {
    CAPTURE(buffers);
    const FewPages few(buffers);
    Uploader uploader(kGpu);
    CHECK(at::equal(uploader.upload(bytes_of(values), values.sizes(), at::kInt).cpu(), values));
  }
  CHECK_FALSE(device_notes(DeviceId::cuda(0)).empty());
}

TEST_CASE("an uploader that goes while its copies are queued leaves its buffers to nobody before they are read") {
  const at::Tensor first = at::zeros({std::int64_t{8} << 20}, at::kInt), second = at::ones_like(first);
  for (int i = 0; i < 10; ++i) {
    at::Tensor x = at::ones({8192, 8192}, kGpu);
    for (int k = 0; k < 20; ++k) x = at::mm(x, x).sigmoid_();  // copies wait behind it
    at::Tensor a, b;
    a = Uploader(kGpu).upload(bytes_of(first), first.sizes(), at::kInt);
    b = Uploader(kGpu).upload(bytes_of(second), second.sizes(), at::kInt);
    CHECK(a.max().item<int>() == 0);
    CHECK(b.min().item<int>() == 1);
  }
}

TEST_CASE("blocks are streamed from pages that are not locked") {
  for (const int buffers : {1, 0}) {
    const FewPages few(buffers);
    check_streaming(DeviceId::cpu());
  }
}

TEST_CASE("CUDA's own refusal is one: what is left over is main memory's") {
  for (const PinnedFrom from : {PinnedFrom::Driver, PinnedFrom::Cache}) {
    std::string why;
    try {
      staging_bytes(std::int64_t{1} << 48, from, DeviceId::cuda(0));
    } catch (const c10::Error& error) {
      why = error.what_without_backtrace();
    }
    CAPTURE(why);
    CHECK(why.find("DefaultCPUAllocator") != std::string::npos);
  }
  CHECK(at::ones({16}, kGpu).sum().item<float>() == 16.0F);  // no error is left over
}

TEST_CASE("ways between this machine's GPUs change no byte") {
  if (!is_several_gpus()) return;
  const auto count = static_cast<int>(survey_devices().gpus.size());
  for (int from = 0; from < count; ++from) {
    for (int to = 0; to < count; ++to) {
      if (from == to) continue;
      const at::Device a(at::kCUDA, static_cast<c10::DeviceIndex>(from)),
          b(at::kCUDA, static_cast<c10::DeviceIndex>(to));
      MESSAGE("cuda:" << from << " to cuda:" << to << ": "
                      << (copy_path(a, b) == CopyPath::Peer ? "peer access" : "main memory"));
    }
  }
  CHECK(device_notes(DeviceId::cuda(1)).empty());
}

TEST_CASE("peer access that changes bytes is not used, by hand-overs, exchanges and streams") {
  if (!is_several_gpus()) return;
  const at::Device other(at::kCUDA, 1);
  forget_copy_paths();
  peer_copy_hook = [](at::Tensor& arrived) { arrived[12345].bitwise_xor_(1); };
  CHECK(HandOver::path_between(other, kGpu) == CopyPath::MainMemory);
  const at::Tensor values = at::arange(1 << 22, at::TensorOptions(at::kInt).device(other));
  CHECK(at::equal(hand_over(values, kGpu).cpu(), values.cpu()));
  check_streaming(DeviceId::cuda(1));
  JointWork together;
  Exchange exchange(2, together);
  std::future<at::Tensor> taken = std::async(std::launch::async, [&] {
    const at::Tensor own = at::zeros({1}, kGpu);
    return exchange.show(0, {own}).take(1, 0, own).cpu();
  });
  exchange.show(1, {values});
  CHECK(at::equal(taken.get(), values.cpu()));
  CHECK(
      device_notes(DeviceId::cuda(0)).back().starts_with("peer access from cuda:1 changes bytes (the first at 12345"));
  peer_copy_hook = nullptr;
  forget_copy_paths();
}

TEST_SUITE_END();
