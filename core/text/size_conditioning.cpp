#include "core/text/size_conditioning.h"

#include <ATen/ATen.h>

#include <vector>

#include "core/nn.h"

namespace mgpu {
namespace {

constexpr std::int64_t kWidth = 256;

at::Tensor with_numbers(const at::Tensor& pooled, const std::vector<double>& numbers) {
  return at::cat({pooled, sinusoidal_embedding(numbers, kWidth).view({1, -1}).to(pooled.device())}, 1);
}

}  // namespace

at::Tensor sdxl_vector(const at::Tensor& pooled, std::int64_t height, std::int64_t width) {
  const auto h = static_cast<double>(height), w = static_cast<double>(width);
  return with_numbers(pooled, {h, w, 0.0, 0.0, h, w});
}

at::Tensor sdxl_refiner_vector(const at::Tensor& pooled, std::int64_t height, std::int64_t width, double aesthetic) {
  return with_numbers(pooled, {static_cast<double>(height), static_cast<double>(width), 0.0, 0.0, aesthetic});
}

}  // namespace mgpu
