#include "core/driver_probe.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>
#include <future>
#include <latch>
#include <vector>

#include "core/image_nn.h"
#include "core/memory.h"
#include "core/nn.h"
#include "core/own_memory.h"

namespace mgpu {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr int kThreadsOfRun = 2;  // that compute at once: a device's worker, and the one that codes pictures

/// As transformers compute: products of few and many tokens, attention of heads of several widths.
void run_transformer_operations(const at::TensorOptions& options) {
  constexpr std::int64_t kWidth = 2048;
  for (const std::int64_t tokens : {1, 77, 1024}) {
    const at::Tensor x = at::ones({1, tokens, kWidth}, options), weight = at::ones({3 * kWidth, kWidth}, options);
    at::linear(x, weight, at::ones({3 * kWidth}, options));
    at::silu(layer_norm_modulate(x, x.narrow(1, 0, 1), x.narrow(1, 0, 1)));
    at::gelu(at::layer_norm(x, {kWidth}));
  }
  for (const std::int64_t width : {40, 64, 80, 128, 160}) {
    const at::Tensor heads = at::ones({1, 16, 1024, width}, options);
    at::scaled_dot_product_attention(heads, heads, heads);
    at::softmax(heads, -1);
  }
}

/// As UNets and autoencoders compute.
void run_image_operations(const at::TensorOptions& options) {
  for (const std::int64_t channels : {128, 512}) {
    const at::Tensor x = at::ones({1, channels, 64, 64}, options).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor wide = at::ones({channels, channels, 3, 3}, options).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor narrow = at::ones({channels, channels, 1, 1}, options);
    for (const std::int64_t stride : {1, 2}) at::conv2d(x, wide, {}, stride, 1);
    at::conv2d(x, narrow);
    at::conv2d(x.contiguous(), wide.contiguous(), {}, 1, 1);
    at::group_norm(x, 32);
    at::upsample_nearest2d(x, {128, 128});
  }
  const at::Tensor q = at::ones({4096, 512}, options);
  attend(q, q, q);
}

/// What a run does on a device, in one of its threads.
void run_operations(at::Device device, bool has_bf16) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    if (type == at::kBFloat16 && !has_bf16) continue;
    const at::TensorOptions options = at::device(device).dtype(type);
    run_transformer_operations(options);
    run_image_operations(options);
  }
}

/// As blocks are streamed and passes handed over: by copies on streams of their own.
void run_copies(at::Device device) {
  const at::Tensor host = at::ones({1 << 20}, at::kFloat);
  for (const bool is_urgent : {false, true}) {
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool(is_urgent, device.index()));
    host.to(device).add_(1).to(at::kCPU);
  }
}

}  // namespace

std::uint64_t probe_driver_bytes(const DeviceId& gpu, bool has_bf16) {
  const at::Device device = torch_device(gpu);
  const c10::cuda::CUDAGuard guard(device);
  driver_bytes(gpu);  // has LibTorch's allocator set up, and others' memory noted, before there is a context
  run_operations(device, has_bf16);
  run_copies(device);
  // Each thread has handles of cuBLAS and cuDNN, as long as it lives: this one, and those of a run.
  std::latch all_done(kThreadsOfRun);
  std::vector<std::future<void>> threads;
  for (int i = 0; i < kThreadsOfRun; ++i)
    threads.push_back(std::async(std::launch::async, [&] {
      std::exception_ptr error;
      try {
        const c10::cuda::CUDAGuard own(device);
        const c10::InferenceMode no_gradients;
        run_operations(device, has_bf16);
      } catch (...) {
        error = std::current_exception();
      }
      all_done.arrive_and_wait();
      if (error) std::rethrow_exception(error);
    }));
  for (std::future<void>& thread : threads) thread.get();
  synchronize(device);
  const std::uint64_t bytes = driver_bytes(gpu);
  release_workspaces();
  release_cached(gpu);
  return bytes == DriverShare::kMostPlausible ? 0 : with_driver_margin(bytes);
}

std::uint64_t with_driver_margin(std::uint64_t measured) {
  return (measured + measured / 10 + 32 * kMiB) / kMiB * kMiB;
}

}  // namespace mgpu
