#include "core/speed_probe.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/clock.h"
#include "core/memory.h"

namespace mgpu {
namespace {

constexpr std::int64_t kHeads = 24, kHeadWidth = 128, kWidth = kHeads * kHeadWidth;  // Flux's
constexpr double kProbeSeconds = 0.15;

struct Workload {
  std::int64_t tokens = 0;
  std::int64_t columns = 0;  ///< of the product

  double operations() const {
    const auto n = static_cast<double>(tokens);
    return 2.0 * n * kWidth * static_cast<double>(columns) + 4.0 * n * n * kWidth;
  }
};

/// Numbers of some spread that depend on no random generator, which pictures draw from.
at::Tensor numbers(at::IntArrayRef shape, at::TensorOptions options) {
  return at::arange(c10::multiply_integers(shape), options.dtype(at::kFloat)).sin_().to(options).view(shape);
}

double measure_rate(at::Device device, at::ScalarType dtype) {
  const Workload work = device.is_cuda() ? Workload{4096, 4 * kWidth} : Workload{256, kWidth};
  const at::TensorOptions options = at::device(device).dtype(dtype);
  const at::Tensor x = numbers({work.tokens, kWidth}, options), weight = numbers({work.columns, kWidth}, options);
  const at::Tensor heads = numbers({1, kHeads, work.tokens, kHeadWidth}, options);
  const auto seconds_of = [&](int times) {
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < times; ++i) {
      at::linear(x, weight);
      at::scaled_dot_product_attention(heads, heads, heads);
    }
    synchronize(device);
    return seconds_since(start);
  };
  synchronize(device);
  seconds_of(1);  // loads the libraries' kernels
  const int times = static_cast<int>(std::clamp(kProbeSeconds / seconds_of(1), 1.0, 1000.0));
  return work.operations() * times / seconds_of(times);
}

}  // namespace

double probe_rate(at::Device device, at::ScalarType dtype) {
  const double rate = measure_rate(device, dtype);
  if (device.is_cuda()) release_cached(DeviceId::cuda(device.index()));
  return rate;
}

}  // namespace mgpu
