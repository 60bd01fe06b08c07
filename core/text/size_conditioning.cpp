#include "core/text/size_conditioning.h"

#include <ATen/ATen.h>

#include <span>

#include "core/nn.h"

namespace mgpu {
namespace {

constexpr std::int64_t kWidth = 256;

at::Tensor with_numbers(const at::Tensor& pooled, at::ArrayRef<double> numbers) {
  const at::Tensor values = at::tensor(numbers, at::kFloat).to(pooled.device());
  return at::cat({pooled, sinusoidal_embedding(values, kWidth).view({1, -1})}, 1);
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
