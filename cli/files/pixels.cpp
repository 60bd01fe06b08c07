#include "cli/files/pixels.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace mgpu {

Rgb8 to_rgb8(const at::Tensor& image) {
  MGPU_CHECK(image.dim() == 3 && image.size(0) == 3, "a picture is [3, H, W]");
  const at::Tensor values = image.detach().to(at::kCPU, at::kFloat);
  if (!at::isfinite(values).all().item<bool>())
    throw Error(Exit::ImageFailed, Mark{}, "the picture has values that are not finite");
  const at::Tensor bytes = values.clamp(0.0, 1.0).mul(255.0).to(at::kByte).permute({1, 2, 0}).contiguous();
  const auto* data = bytes.data_ptr<std::uint8_t>();
  return {static_cast<int>(image.size(2)), static_cast<int>(image.size(1)), {data, data + bytes.numel()}};
}

at::Tensor to_tensor(const Rgb8& picture) {
  at::Tensor bytes = at::empty({picture.height, picture.width, 3}, at::kByte);
  std::ranges::copy(picture.pixels, bytes.mutable_data_ptr<std::uint8_t>());
  return bytes.permute({2, 0, 1}).unsqueeze(0).to(at::kFloat).div(255.0).contiguous();
}

}  // namespace mgpu
