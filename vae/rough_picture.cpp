#include "vae/rough_picture.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace mgpu {

at::Tensor rough_picture(const at::Tensor& latent, const LatentRgb& rgb) {
  const auto channels = static_cast<std::int64_t>(rgb.factors.size());
  MGPU_CHECK_EQ(latent.size(1), channels);
  at::Tensor matrix = at::empty({channels, 3}, at::kFloat);
  for (std::int64_t i = 0; i < channels; ++i)
    std::ranges::copy(rgb.factors[static_cast<std::size_t>(i)], matrix.mutable_data_ptr<float>() + 3 * i);
  const at::Tensor bias = at::tensor(at::ArrayRef<float>(rgb.bias));
  const at::Tensor values = latent.to(at::kFloat).permute({0, 2, 3, 1});  // channels behind
  const at::Tensor colours = at::matmul(values, matrix.to(latent.device())) + bias.to(latent.device());
  return ((colours + 1) / 2).clamp(0.0, 1.0).permute({0, 3, 1, 2}).contiguous();
}

at::Tensor shrink(const at::Tensor& image, std::int64_t side) {
  const std::int64_t height = image.size(2), width = image.size(3), longer = std::max(height, width);
  if (longer <= side) return image;
  const auto scaled = [&](std::int64_t length) { return std::max<std::int64_t>(1, length * side / longer); };
  return at::_upsample_bilinear2d_aa(image, {scaled(height), scaled(width)}, /*align_corners=*/false);
}

}  // namespace mgpu
