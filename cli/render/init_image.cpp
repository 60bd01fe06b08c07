#include "cli/render/init_image.h"

#include <ATen/ATen.h>

#include "cli/files/orientation.h"

namespace mgpu {
namespace {

/// The middle of a picture [1, C, H, W].
at::Tensor cut(const at::Tensor& picture, std::int64_t height, std::int64_t width) {
  const std::int64_t top = (picture.size(2) - height) / 2, left = (picture.size(3) - width) / 2;
  return picture.narrow(2, top, height).narrow(3, left, width).contiguous();
}

}  // namespace

at::Tensor read_init_image(const ImageJob& image) {
  return cut(to_tensor(read_upright_png(image.init_image.path)), *image.height, *image.width);
}

at::Tensor read_mask(const FileReference& mask) {
  return to_tensor(read_upright_png(mask.path)).narrow(1, 0, 1).contiguous();
}

at::Tensor read_cut_mask(const ImageJob& image) {
  return cut(read_mask(image.mask), *image.height, *image.width);
}

}  // namespace mgpu
